/* tests64.h - the tables of tests of the 64-bit suite, one for each file. */
#ifndef SUITE_TESTS64_H
#define SUITE_TESTS64_H

void page_fault_tests(void);   /* page_fault.c */
void accessed_tests(void);     /* accessed.c */
void tlb_tests(void);          /* tlb.c */
void smc_tests(void);          /* smc.c */
void chain_tests(void);        /* chain.c */
void precise_tests(void);      /* precise.c */
void atomic_tests(void);       /* atomic.c */
void interrupt_tests(void);    /* interrupt.c */
void double_fault_tests(void); /* double_fault.c */
void apic_tests(void);         /* apic.c */
void timer_tests(void);        /* timer.c */
void debug_tests(void);        /* debug.c */
void privilege_tests(void);    /* privilege.c */
void segment_tests(void);      /* segment.c */
void feature_tests(void);      /* feature.c */
void fpu_tests(void);          /* fpu.c */

#endif
