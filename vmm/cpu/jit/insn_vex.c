/* insn_vex.c - VEX on general registers: BMI1 and BMI2 (SDM vol 2 §2.3). There is no AVX. */
#include "cpu/jit/insn_decoder.h"
#include "cpu/jit/insn_tables.h"

static const struct opcode_vex *vex_entry(const struct insn *i, unsigned prefix)
{
    for (unsigned n = 0; n < opcode_vex_count; n++) {
        const struct opcode_vex *v = &opcode_vex[n];

        if (v->map == i->map && v->opcode == i->opcode && v->prefix == prefix &&
            (v->group < 0 || v->group == (i->modrm >> 3 & 7)))
            return v;
    }
    return NULL;
}

/* The three-byte form; the two-byte one has no instruction on general registers. */
bool decode_vex(struct decoder *d, struct insn *i, uint8_t first)
{
    const uint8_t excluded = PREFIX_LOCK | PREFIX_REP | PREFIX_REPNE | PREFIX_OPSIZE | PREFIX_REX;
    const struct opcode_vex *v;
    uint8_t fields[2];

    fields[0] = next8(d);
    if (first == 0xc5 || (i->prefix & excluded))
        return false;
    fields[1] = next8(d);
    i->prefix |= PREFIX_VEX;
    i->map = fields[0] & 0x1f;
    i->opcode = next8(d);
    i->modrm = next8(d);
    i->vvvv = ~fields[1] >> 3 & 0xf;
    v = vex_entry(i, fields[1] & 3);
    if (!v || (fields[1] & 4) || !(d->features >> opcode_feature[v->op] & 1))
        return false;
    if (v->form == FORM_REG_RM_IMM && i->vvvv) /* names no register: all ones */
        return false;
    if (d->width == CODE_64)
        d->rex = (uint8_t)((~fields[0] >> 5 & 7) | (fields[1] & 0x80 ? REX_W : 0));
    else
        i->vvvv &= 7; /* and W and B do not count (SDM vol 2 §2.3.5) */
    i->op = v->op;
    i->form = v->form;
    i->size = i->src_size = d->rex & REX_W ? 8 : 4;
    i->reg = (uint8_t)((i->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0));
    if (i->modrm >= 0xc0)
        i->rm = (uint8_t)((i->modrm & 7) | (d->rex & REX_B ? 8 : 0));
    else
        decode_memory(d, i, i->modrm);
    if (i->form == FORM_REG_RM_IMM)
        i->imm = next8(d);
    return true;
}
