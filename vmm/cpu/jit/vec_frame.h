/*
 * vec_frame.h - where the assembly of vec_run.S finds the fields of struct vec_frame; exec_vec.c
 * checks the numbers.
 */
#ifndef VMM_JIT_VEC_FRAME_H
#define VMM_JIT_VEC_FRAME_H

#define VEC_FRAME_XMM    0
#define VEC_FRAME_MM     48
#define VEC_FRAME_RAX    64
#define VEC_FRAME_RCX    72
#define VEC_FRAME_RDX    80
#define VEC_FRAME_RFLAGS 88
#define VEC_FRAME_MXCSR  96

#endif
