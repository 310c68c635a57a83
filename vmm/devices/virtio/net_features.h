/*
 * net_features.h - network feature bits of VirtIO 1.3 §5.1.3 that the kernel's headers may be too
 * old to name.
 */
#ifndef VMM_NET_FEATURES_H
#define VMM_NET_FEATURES_H

enum {
    NET_F_GUEST_USO4 = 54,
    NET_F_GUEST_USO6 = 55,
    NET_F_HOST_USO = 56,
    NET_F_SPEED_DUPLEX = 63,
    NET_HDR_GSO_UDP_L4 = 5, /* §5.1.6 */
};

#endif
