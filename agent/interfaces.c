/* interfaces.c - addresses of network interfaces, by netdevice(7) (interfaces.h). */
#include "interfaces.h"

#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct ifreq request_for(const char *name)
{
    struct ifreq r = {0};

    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    return r;
}

static bool address_of(int fd, const char *name, uint8_t mac[6])
{
    struct ifreq r = request_for(name);

    if (ioctl(fd, SIOCGIFHWADDR, &r) < 0 || r.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return false;
    memcpy(mac, r.ifr_hwaddr.sa_data, 6);
    return true;
}

/* Bridges and VLANs have the address of a device that they stand on, and follow it. */
static bool is_device(const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
    return access(path, F_OK) == 0;
}

static bool find(int fd, const struct if_nameindex *list, const uint8_t mac[6],
                 char name[IF_NAMESIZE])
{
    bool found = false;

    for (; list->if_name; list++) {
        uint8_t now[6];

        if (!address_of(fd, list->if_name, now) || memcmp(now, mac, sizeof(now)))
            continue;
        if (!found || is_device(list->if_name))
            snprintf(name, IF_NAMESIZE, "%s", list->if_name);
        if (is_device(list->if_name))
            return true;
        found = true;
    }
    return found;
}

static int set_address(int fd, const char *name, const uint8_t mac[6])
{
    struct ifreq r = request_for(name);

    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(r.ifr_hwaddr.sa_data, mac, 6);
    return ioctl(fd, SIOCSIFHWADDR, &r) < 0 ? -errno : 0;
}

static int set_flags(int fd, const char *name, unsigned set, unsigned clear)
{
    struct ifreq r = request_for(name);

    if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
        return -errno;
    r.ifr_flags = (short)(((unsigned)r.ifr_flags & ~clear) | set);
    return ioctl(fd, SIOCSIFFLAGS, &r) < 0 ? -errno : 0;
}

static int change(int fd, const char *name, const uint8_t mac[6])
{
    int r = set_address(fd, name, mac), up;

    if (r != -EBUSY)
        return r;
    r = set_flags(fd, name, 0, IFF_UP);
    if (r < 0)
        return r;
    r = set_address(fd, name, mac);
    up = set_flags(fd, name, IFF_UP, 0);
    return r < 0 ? r : up;
}

int interface_change(const struct identity_interface *i, char name[IF_NAMESIZE],
                     struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *list = fd < 0 ? NULL : if_nameindex();
    int r;

    *name = '\0';
    if (!list)
        return qz_fail(err, -errno, "no list of interfaces: %s", strerror(errno));
    if (find(fd, list, i->mac, name))
        r = CHANGE_ALREADY;
    else if (!find(fd, list, i->was, name))
        r = qz_fail(err, -ENODEV, "no interface has this address");
    else if ((r = change(fd, name, i->mac)) < 0)
        qz_fail(err, r, "%s: %s", name, strerror(-r));
    else
        r = CHANGE_DONE;
    if_freenameindex(list);
    return r;
}
