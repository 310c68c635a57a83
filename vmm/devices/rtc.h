/* rtc.h - the MC146818 real-time clock and its CMOS memory, ports 0x70 and 0x71, IRQ 8. */
#ifndef VMM_RTC_H
#define VMM_RTC_H

#include "machine/machine.h"

struct rtc;

int rtc_new(struct rtc **rtc, struct machine *m, struct qz_error *err);
void rtc_free(struct rtc *rtc);
void rtc_reset(struct rtc *rtc);
void rtc_state(struct rtc *rtc, struct qz_state *s); /* saved or loaded, the clock stands */

#endif
