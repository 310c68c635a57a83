/* tests32.h - the tables of tests of the 32-bit suite, one for each file. */
#ifndef SUITE_TESTS32_H
#define SUITE_TESTS32_H

void segment32_tests(void); /* segment32.c */
void task32_tests(void);    /* task32.c */
void paging32_tests(void);  /* paging32.c */
void mode32_tests(void);    /* mode32.c */

#endif
