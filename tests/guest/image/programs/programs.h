/* programs.h - the small guest's own programs: one static file, the name it is called by chooses
 * (main.c). */
#ifndef GUEST_PROGRAMS_H
#define GUEST_PROGRAMS_H

int power_button(int argc, char **argv);
int run_command(int argc, char **argv);
int vsock(int argc, char **argv);

#endif
