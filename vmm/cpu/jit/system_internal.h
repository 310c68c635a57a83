/*
 * system_internal.h - what the files behind jit_exec_system share.
 */
#ifndef VMM_JIT_SYSTEM_INTERNAL_H
#define VMM_JIT_SYSTEM_INTERNAL_H

#include "cpu/jit/exec.h"
#include "cpu/jit/segment.h"

static inline void require_ring0(struct jit_cpu *cpu)
{
    if (cpu->cpl != 0)
        jit_raise_code(cpu, VECTOR_GP, 0);
}

/* SGDT, SIDT, SLDT, STR, SMSW: not below ring 0 where the guest says so (SDM vol 3 §2.5). */
static inline void require_umip(struct jit_cpu *cpu)
{
    if (cpu->cpl != 0 && (cpu->cr4 & CR4_UMIP))
        jit_raise_code(cpu, VECTOR_GP, 0);
}

/* The guest's vendor follows the APM where it differs from the SDM: by leaf 0. */
bool guest_is_amd(const struct jit_cpu *cpu);

jit_handler exec_mov_from_cr, exec_mov_to_cr, exec_clts, exec_lmsw, exec_smsw;
jit_handler exec_mov_from_dr, exec_mov_to_dr;
jit_handler exec_lgdt, exec_lidt, exec_sgdt, exec_sidt;
jit_handler exec_invlpg, exec_invpcid;
jit_handler exec_syscall, exec_sysret, exec_sysenter, exec_sysexit, exec_swapgs;
jit_handler exec_rdfsbase, exec_rdgsbase, exec_wrfsbase, exec_wrgsbase;

#endif
