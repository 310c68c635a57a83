/*
 * acpi.h - makes the ACPI tables of a PC, with a small AML writer, and checks tables made
 * elsewhere.
 *
 * Everything is appended to one growing buffer whose first failure sticks: nothing needs to be
 * checked until qz_acpi_place() or qz_acpi_export() at the end, which tell what went wrong and
 * where.
 *
 *     struct qz_acpi_tables t;
 *     struct qz_aml a;
 *
 *     qz_acpi_tables_init(&t, "QUEZTL", "PC");
 *     qz_acpi_add_facs(&t);
 *     qz_acpi_add_fadt(&t, &(struct qz_acpi_fadt){.sci_irq = 9, .pm1a_event = 0x600, ...});
 *     qz_acpi_add_madt(&t, &(struct qz_acpi_madt){.cpus = cpus, .n_cpus = n, ...});
 *
 *     qz_aml_begin(&a, &t, "DSDT");
 *     qz_aml_scope(&a, "\\_SB");
 *     {
 *         qz_aml_device(&a, "PCI0");
 *         qz_aml_name(&a, "_HID", qz_ax_eisaid("PNP0A08"));
 *         qz_aml_name_resources(&a, "_CRS");
 *         qz_aml_word_bus(&a, 0, 255);
 *         qz_aml_dword_memory(&a, 0xc0000000, 0xfebfffff, QZ_AML_MEM_RW);
 *         qz_aml_end(&a);
 *
 *         qz_aml_method(&a, "_STA", 0, 0);                 //  Method (_STA) {
 *         qz_aml_if(&a, qz_ax_equal(qz_ax_name("PRES"), qz_ax_int(1)));
 *         qz_aml_return(&a, qz_ax_int(0x0f));              //    If (PRES == 1) { Return (0x0F) }
 *         qz_aml_else(&a);
 *         qz_aml_return(&a, qz_ax_int(0));                 //    Else { Return (Zero) }
 *         qz_aml_end(&a);                                  //    (one end for if + else)
 *         qz_aml_end(&a);                                  //  }
 *         qz_aml_end(&a);
 *     }
 *     qz_aml_end(&a);
 *     qz_aml_finish(&a);
 *
 *     rc = qz_acpi_place(&t, 0xe0000, 0xe1000, rsdp, &out, &err);     // direct kernel boot
 *     rc = qz_acpi_export(&t, &rsdp_file, &tables_file, &loader_file, &err);  // firmware, by
 * fw_cfg qz_acpi_tables_fini(&t);
 *
 * Statements take the writer and say what to append; expressions (qz_ax_...) are plain values that
 * nest like the ASL they stand for. Whatever opens a block (scope, device, method, if, while,
 * package, resources, field) is closed by one qz_aml_end().
 *
 * Nothing here is shared between threads or keeps global state. Numbers are host-endian in the API
 * and little-endian in the tables on every architecture. Source: ACPI 6.4; "§" numbers below are
 * its sections.
 */
#ifndef QUEZTL_ACPI_H
#define QUEZTL_ACPI_H

#include <queztl/base.h>

/* ---- the buffer ------------------------------------------------------------------------------ */

/*
 * Bytes that grow, with a sticky error: after the first failure every append is a no-op. The owner
 * calls qz_acpi_blob_fini(). data stays valid until the next append.
 */
struct qz_acpi_blob {
    uint8_t *data;
    size_t len, cap;
    size_t max;    /* growing past this is -E2BIG */
    int error;     /* 0, or the first negative errno */
    char why[120]; /* what that failure was, for a person */
};

void qz_acpi_blob_init(struct qz_acpi_blob *b, size_t max);
void qz_acpi_blob_fini(struct qz_acpi_blob *b);
/* Records the first failure; later ones are ignored. */
void qz_acpi_blob_fail(struct qz_acpi_blob *b, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* n zeroed bytes at the end; NULL after a failure. */
uint8_t *qz_acpi_blob_grow(struct qz_acpi_blob *b, size_t n);
void qz_acpi_put8(struct qz_acpi_blob *b, uint8_t v);
void qz_acpi_put16(struct qz_acpi_blob *b, uint16_t v);
void qz_acpi_put32(struct qz_acpi_blob *b, uint32_t v);
void qz_acpi_put64(struct qz_acpi_blob *b, uint64_t v);
void qz_acpi_put_bytes(struct qz_acpi_blob *b, const void *p, size_t n);
void qz_acpi_put_zeros(struct qz_acpi_blob *b, size_t n);
/* The string in exactly n bytes, cut or filled with `pad`. */
void qz_acpi_put_text(struct qz_acpi_blob *b, const char *s, size_t n, char pad);

/* ---- the table set --------------------------------------------------------------------------- */

enum {
    QZ_ACPI_TABLES_MAX = 64,         /* tables in one set, XSDT included */
    QZ_ACPI_BYTES_MAX = 8 << 20,     /* bytes in one set */
    QZ_ACPI_RSDP_SIZE = 36,          /* §5.2.5.3, revision 2 */
    QZ_ACPI_TABLES_ALIGN = 64,       /* of the table block in guest memory, for the FACS */
    QZ_ACPI_LOADER_ENTRY_SIZE = 128, /* one command of etc/table-loader */
};

struct qz_acpi_tables {
    struct qz_acpi_blob blob; /* every table but the RSDP, each at an aligned offset */
    char oem_id[6];
    char oem_table_id[8];
    struct {
        char signature[4];
        size_t offset, len;
    } table[QZ_ACPI_TABLES_MAX];
    size_t n_tables;
    bool open;     /* between table_begin and table_end; the last entry of table[] */
    bool finished; /* the XSDT is there, nothing may be added */
};

/* The ids are cut or padded with spaces (OEM ID 6, OEM table ID 8 characters). */
void qz_acpi_tables_init(struct qz_acpi_tables *t, const char *oem_id, const char *oem_table_id);
void qz_acpi_tables_fini(struct qz_acpi_tables *t);

/*
 * For a table that has no builder below: begin, append the body to t->blob, end. Length and
 * checksum are filled at the end. Tables cannot nest.
 */
void qz_acpi_table_begin(struct qz_acpi_tables *t, const char *signature, uint8_t revision);
void qz_acpi_table_end(struct qz_acpi_tables *t);

/*
 * Completes the set: needs exactly one FADT, DSDT and FACS, makes the XSDT (FADT first, then the
 * order in which tables were added), and reports whatever failed since init. Called by the two
 * below; calling it again is harmless.
 */
int qz_acpi_tables_finish(struct qz_acpi_tables *t, struct qz_error *err);

/*
 * Direct boot: writes the RSDP (36 bytes, for guest-physical rsdp_gpa) and appends to *out the
 * block of tables for tables_gpa, all pointers resolved and checksums right. rsdp_gpa is a multiple
 * of 16 (a kernel that gets no pointer looks for it in 0xe0000..0xfffff), tables_gpa a multiple of
 * 64; the two must not overlap. *out is initialised by the caller and may be used again; its length
 * is the room the tables take.
 */
int qz_acpi_place(struct qz_acpi_tables *t, uint64_t rsdp_gpa, uint64_t tables_gpa,
                  uint8_t rsdp[QZ_ACPI_RSDP_SIZE], struct qz_acpi_blob *out, struct qz_error *err);

/* The names of the three files below in fw_cfg. */
#define QZ_ACPI_FILE_RSDP   "etc/acpi/rsdp"
#define QZ_ACPI_FILE_TABLES "etc/acpi/tables"
#define QZ_ACPI_FILE_LOADER "etc/table-loader"

/*
 * Firmware boot: the three fw_cfg files by which OVMF and SeaBIOS install tables of a hypervisor:
 * pointers hold offsets, and the loader's commands (allocate, add pointer, add checksum) make them
 * real. Each blob is initialised by the caller.
 */
int qz_acpi_export(struct qz_acpi_tables *t, struct qz_acpi_blob *rsdp, struct qz_acpi_blob *tables,
                   struct qz_acpi_blob *loader, struct qz_error *err);

/* ---- generic addresses (§5.2.3.2) ------------------------------------------------------------ */

enum { QZ_ACPI_SPACE_MEMORY = 0, QZ_ACPI_SPACE_IO = 1, QZ_ACPI_SPACE_PCI_CONFIG = 2 };

struct qz_acpi_gas {
    uint8_t space;  /* QZ_ACPI_SPACE_* */
    uint8_t bits;   /* register width */
    uint8_t access; /* 1 byte, 2 word, 3 dword, 4 qword; 0 undefined */
    uint64_t address;
};
/* bits is 8, 16, 32 or 64; the access size follows it. */
struct qz_acpi_gas qz_acpi_gas_io(uint16_t port, uint8_t bits);
struct qz_acpi_gas qz_acpi_gas_mem(uint64_t gpa, uint8_t bits);

/* ---- FADT and FACS (§5.2.9, §5.2.10) --------------------------------------------------------- */

enum { /* Fixed Feature Flags, table 5.10 */
       QZ_ACPI_FADT_WBINVD = 1 << 0,
       QZ_ACPI_FADT_PROC_C1 = 1 << 2,
       QZ_ACPI_FADT_PWR_BUTTON_METHOD = 1 << 4, /* no fixed power button */
       QZ_ACPI_FADT_SLP_BUTTON_METHOD = 1 << 5, /* no fixed sleep button */
       QZ_ACPI_FADT_FIX_RTC = 1 << 6,           /* no RTC wake status in the fixed registers */
       QZ_ACPI_FADT_RTC_S4 = 1 << 7,
       QZ_ACPI_FADT_TMR_VAL_EXT = 1 << 8,    /* the PM timer has 32 bits, not 24 */
       QZ_ACPI_FADT_RESET_REG_SUP = 1 << 10, /* set by the builder where reset.address is given */
       QZ_ACPI_FADT_HEADLESS = 1 << 12,
       QZ_ACPI_FADT_PCI_EXP_WAK = 1 << 14,
       QZ_ACPI_FADT_USE_PLATFORM_CLOCK = 1 << 15,
       QZ_ACPI_FADT_APIC_CLUSTER = 1 << 18,
       QZ_ACPI_FADT_APIC_PHYSICAL = 1 << 19,
};
enum { /* IAPC_BOOT_ARCH, table 5.11 */
       QZ_ACPI_BOOT_LEGACY_DEVICES = 1 << 0,
       QZ_ACPI_BOOT_8042 = 1 << 1,
       QZ_ACPI_BOOT_NO_VGA = 1 << 2,
       QZ_ACPI_BOOT_NO_MSI = 1 << 3,
       QZ_ACPI_BOOT_NO_ASPM = 1 << 4,
       QZ_ACPI_BOOT_NO_CMOS_RTC = 1 << 5,
};

/* The full ACPI hardware model, all registers in I/O space. Zero means "not there" unless told
 * otherwise. */
struct qz_acpi_fadt {
    uint8_t
        profile; /* preferred power profile: 0 unspecified, 1 desktop, 4 enterprise server ... */
    uint16_t sci_irq;
    uint16_t smi_command; /* port; 0: the machine is always in ACPI mode */
    uint8_t acpi_enable, acpi_disable;
    uint16_t pm1a_event;   /* port, 4 bytes: status and enable; needed */
    uint16_t pm1a_control; /* port, 2 bytes; needed */
    uint16_t pm_timer;     /* port, 4 bytes */
    uint16_t gpe0;         /* port, gpe0_len bytes (even): half status, half enable */
    uint8_t gpe0_len;
    struct qz_acpi_gas reset; /* address 0: no reset register */
    uint8_t reset_value;
    uint8_t rtc_century;    /* CMOS index of the century */
    uint16_t boot_arch;     /* QZ_ACPI_BOOT_* */
    uint32_t flags;         /* QZ_ACPI_FADT_* */
    const char *hypervisor; /* up to 8 characters of Hypervisor Vendor Identity, or NULL */
};
void qz_acpi_add_fadt(struct qz_acpi_tables *t, const struct qz_acpi_fadt *f);
void qz_acpi_add_facs(struct qz_acpi_tables *t);

/* ---- MADT (§5.2.12) -------------------------------------------------------------------------- */

/* One logical processor: MADT, SRAT and the DSDT's processor devices are made from the same array.
 */
struct qz_acpi_cpu {
    uint32_t apic_id;
    uint32_t uid;       /* _UID of the processor device; ties the tables together */
    uint32_t proximity; /* NUMA node */
    bool absent;        /* can come later (online capable), not there now */
};
struct qz_acpi_ioapic {
    uint8_t id;
    uint32_t address;
    uint32_t gsi_base;
};
enum { /* MPS INTI flags, table 5.26 */
       QZ_ACPI_INTI_BUS = 0,
       QZ_ACPI_INTI_HIGH = 1,
       QZ_ACPI_INTI_LOW = 3,
       QZ_ACPI_INTI_EDGE = 1 << 2,
       QZ_ACPI_INTI_LEVEL = 3 << 2,
};
struct qz_acpi_override { /* ISA interrupt `irq` arrives at `gsi` */
    uint8_t irq;
    uint32_t gsi;
    uint16_t flags; /* QZ_ACPI_INTI_* */
};
#define QZ_ACPI_ALL_CPUS UINT32_MAX
struct qz_acpi_lapic_nmi {
    uint32_t uid; /* or QZ_ACPI_ALL_CPUS */
    uint8_t lint; /* 0 or 1 */
    uint16_t flags;
};
struct qz_acpi_madt {
    uint32_t lapic_address; /* 0: 0xfee00000 */
    bool has_8259;          /* PCAT_COMPAT */
    bool x2apic_only;       /* x2APIC entries also for ids below 255 */
    const struct qz_acpi_cpu *cpus;
    size_t n_cpus;
    const struct qz_acpi_ioapic *ioapics;
    size_t n_ioapics;
    const struct qz_acpi_override *overrides;
    size_t n_overrides;
    const struct qz_acpi_lapic_nmi *nmis;
    size_t n_nmis;
};
/* A processor whose APIC id or uid needs it (255 and above), or x2apic_only, gets an x2APIC entry.
 */
void qz_acpi_add_madt(struct qz_acpi_tables *t, const struct qz_acpi_madt *m);

/* ---- MCFG, HPET, SPCR, WAET ------------------------------------------------------------------ */

struct qz_acpi_ecam { /* PCI Firmware 3.3 §4.1.2 */
    uint64_t base;    /* of bus 0, even where first_bus is not 0 */
    uint16_t segment;
    uint8_t first_bus, last_bus;
};
void qz_acpi_add_mcfg(struct qz_acpi_tables *t, const struct qz_acpi_ecam *e, size_t n);

struct qz_acpi_hpet { /* IA-PC HPET 1.0a §3.2.4 */
    uint64_t address;
    uint32_t block_id; /* the upper-left 32 bits of the capability register */
    uint8_t number;
    uint16_t min_tick;
};
void qz_acpi_add_hpet(struct qz_acpi_tables *t, const struct qz_acpi_hpet *h);

struct qz_acpi_spcr { /* Microsoft SPCR revision 2: a 16550 as console */
    struct qz_acpi_gas base;
    uint8_t irq;   /* ISA line, below 16; 0 where there is none */
    uint32_t gsi;  /* its I/O APIC input */
    uint32_t baud; /* 9600, 19200, 57600, 115200; 0: as the firmware left it */
};
void qz_acpi_add_spcr(struct qz_acpi_tables *t, const struct qz_acpi_spcr *s);

enum { QZ_ACPI_WAET_RTC_GOOD = 1, QZ_ACPI_WAET_PM_TIMER_GOOD = 2 };
void qz_acpi_add_waet(struct qz_acpi_tables *t, uint32_t flags);

/* ---- NUMA: SRAT, SLIT, HMAT (§5.2.16, §5.2.17, §5.2.28) -------------------------------------- */

struct qz_acpi_memory {
    uint64_t base, len;
    uint32_t proximity;
    bool hotplug, nonvolatile;
};
struct qz_acpi_initiator { /* a PCI function that is a node of its own */
    uint32_t proximity;
    uint16_t segment;
    uint8_t bus, devfn;
    bool architectural; /* its transactions follow the processor's memory model */
};
struct qz_acpi_srat {
    bool x2apic_only; /* as in the MADT */
    const struct qz_acpi_cpu *cpus;
    size_t n_cpus;
    const struct qz_acpi_memory *memories;
    size_t n_memories;
    const struct qz_acpi_initiator *initiators;
    size_t n_initiators;
};
void qz_acpi_add_srat(struct qz_acpi_tables *t, const struct qz_acpi_srat *s);

/* distance[from * n + to]: 10 on the diagonal, 11..254 elsewhere, 255 unreachable; n up to 1024. */
void qz_acpi_add_slit(struct qz_acpi_tables *t, const uint8_t *distance, size_t n);

enum qz_acpi_hmat_type { /* table 5.146 */
                         QZ_ACPI_HMAT_ACCESS_LATENCY,
                         QZ_ACPI_HMAT_READ_LATENCY,
                         QZ_ACPI_HMAT_WRITE_LATENCY,
                         QZ_ACPI_HMAT_ACCESS_BANDWIDTH,
                         QZ_ACPI_HMAT_READ_BANDWIDTH,
                         QZ_ACPI_HMAT_WRITE_BANDWIDTH,
};
#define QZ_ACPI_HMAT_UNREACHABLE UINT64_MAX
struct qz_acpi_hmat_memory {
    uint32_t memory;    /* proximity domain of the memory */
    uint32_t initiator; /* the one it is attached to; used where has_initiator */
    bool has_initiator;
};
struct qz_acpi_hmat_locality {
    enum qz_acpi_hmat_type type;
    uint8_t hierarchy; /* 0 memory, 1..3 memory side cache of that level */
    const uint32_t *initiators;
    size_t n_initiators;
    const uint32_t *targets;
    size_t n_targets;
    /* values[initiator * n_targets + target]: picoseconds or MB/s; 0 not known; the builder picks
     * the unit. */
    const uint64_t *values;
};
struct qz_acpi_hmat_cache {
    uint32_t memory;
    uint64_t size;
    uint8_t total_levels, level; /* 0..3, 1..3 */
    uint8_t associativity;       /* 0 none, 1 direct mapped, 2 complex */
    uint8_t write_policy;        /* 0 none, 1 write back, 2 write through */
    uint16_t line_size;
};
struct qz_acpi_hmat {
    const struct qz_acpi_hmat_memory *memories;
    size_t n_memories;
    const struct qz_acpi_hmat_locality *localities;
    size_t n_localities;
    const struct qz_acpi_hmat_cache *caches;
    size_t n_caches;
};
void qz_acpi_add_hmat(struct qz_acpi_tables *t, const struct qz_acpi_hmat *h);

/* ---- AML: expressions (§20.2) ---------------------------------------------------------------- */

/*
 * A finished piece of AML, passed by value. One that grew too long or holds a bad name carries that
 * failure into whatever uses it. Names are paths such as "\\_SB.PCI0", "^FOO", "_CRS"; segments
 * shorter than four characters are padded with '_'; capitals, digits and '_' only.
 */
struct qz_ax {
    uint16_t len;
    uint8_t code[158];
};

struct qz_ax qz_ax_int(uint64_t v);
struct qz_ax qz_ax_str(const char *s);     /* ASCII, up to 150 characters */
struct qz_ax qz_ax_eisaid(const char *id); /* "PNP0A08" */
struct qz_ax
qz_ax_uuid(const char *uuid); /* "33db4d5b-1ff7-401c-9657-7441c03dd766", the ToUUID buffer */
struct qz_ax qz_ax_bytes(const void *p, size_t n); /* Buffer, up to 128 bytes */
struct qz_ax qz_ax_name(const char *path);         /* also the call of a method without arguments */
struct qz_ax qz_ax_local(unsigned n);              /* Local0..Local7 */
struct qz_ax qz_ax_arg(unsigned n);                /* Arg0..Arg6 */
struct qz_ax qz_ax_debug(void);

enum qz_aml_op { /* two operands, result by value */
                 QZ_AML_CONCAT = 0x73,
                 QZ_AML_ADD = 0x72,
                 QZ_AML_SUBTRACT = 0x74,
                 QZ_AML_MULTIPLY = 0x77,
                 QZ_AML_SHIFT_LEFT = 0x79,
                 QZ_AML_SHIFT_RIGHT = 0x7a,
                 QZ_AML_AND = 0x7b,
                 QZ_AML_NAND = 0x7c,
                 QZ_AML_OR = 0x7d,
                 QZ_AML_NOR = 0x7e,
                 QZ_AML_XOR = 0x7f,
                 QZ_AML_MOD = 0x85,
                 QZ_AML_INDEX = 0x88,
};
struct qz_ax qz_ax_op(enum qz_aml_op op, struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_add(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_subtract(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_multiply(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_divide(struct qz_ax x, struct qz_ax y); /* the quotient */
struct qz_ax qz_ax_mod(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_and(struct qz_ax x, struct qz_ax y); /* bitwise */
struct qz_ax qz_ax_or(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_xor(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_shift_left(struct qz_ax x, struct qz_ax bits);
struct qz_ax qz_ax_shift_right(struct qz_ax x, struct qz_ax bits);
struct qz_ax qz_ax_index(struct qz_ax object, struct qz_ax index);
struct qz_ax qz_ax_not(struct qz_ax x); /* bitwise */
struct qz_ax qz_ax_find_set_left_bit(struct qz_ax x);
struct qz_ax qz_ax_find_set_right_bit(struct qz_ax x);
struct qz_ax qz_ax_size_of(struct qz_ax x);
struct qz_ax qz_ax_ref_of(struct qz_ax x);
struct qz_ax qz_ax_deref_of(struct qz_ax x);
struct qz_ax qz_ax_cond_ref_of(struct qz_ax x); /* true where the object exists */
struct qz_ax qz_ax_to_integer(struct qz_ax x);
struct qz_ax qz_ax_to_buffer(struct qz_ax x);
struct qz_ax qz_ax_increment(struct qz_ax target);
struct qz_ax qz_ax_decrement(struct qz_ax target);
struct qz_ax qz_ax_acquire(const char *mutex,
                           uint16_t timeout_ms); /* true on time-out; 0xffff waits */

struct qz_ax qz_ax_land(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_lor(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_lnot(struct qz_ax x);
struct qz_ax qz_ax_equal(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_not_equal(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_less(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_less_equal(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_greater(struct qz_ax x, struct qz_ax y);
struct qz_ax qz_ax_greater_equal(struct qz_ax x, struct qz_ax y);

struct qz_ax qz_ax_call_n(const char *method, const struct qz_ax *args, size_t n);
/* qz_ax_call("\\_SB.OSCH", qz_ax_arg(0), qz_ax_int(3)) */
#define qz_ax_call(method, ...)                                                                    \
    qz_ax_call_n(method, (const struct qz_ax[]){__VA_ARGS__},                                      \
                 sizeof((const struct qz_ax[]){__VA_ARGS__}) / sizeof(struct qz_ax))

/* ---- AML: statements ------------------------------------------------------------------------- */

enum { QZ_AML_DEPTH_MAX = 32 };

struct qz_aml_frame {
    size_t start; /* offset where the package length will stand */
    uint8_t kind;
    bool chained;   /* an Else made by else_if: closes together with its If */
    uint32_t count; /* package: elements so far */
    uint64_t bit;   /* field: position */
};
struct qz_aml {
    struct qz_acpi_tables *tables;
    struct qz_acpi_blob *out;
    struct qz_aml_frame frame[QZ_AML_DEPTH_MAX];
    unsigned depth;
};

/* Begins a definition block, "DSDT" or "SSDT", in the table set; finish ends it (every block must
 * be closed). */
void qz_aml_begin(struct qz_aml *a, struct qz_acpi_tables *t, const char *signature);
void qz_aml_finish(struct qz_aml *a);
/* Closes the block that was opened last. */
void qz_aml_end(struct qz_aml *a);

/* Name space objects. */
void qz_aml_scope(struct qz_aml *a, const char *path);
void qz_aml_device(struct qz_aml *a, const char *name);
enum { QZ_AML_SERIALIZED = 1 };
void qz_aml_method(struct qz_aml *a, const char *name, unsigned n_args, unsigned flags);
void qz_aml_name(struct qz_aml *a, const char *name, struct qz_ax value);
void qz_aml_name_package(struct qz_aml *a,
                         const char *name); /* elements by qz_aml_put and _package, then end */
void qz_aml_name_resources(struct qz_aml *a, const char *name); /* descriptors below, then end */
void qz_aml_name_buffer(struct qz_aml *a, const char *name, const void *p, size_t n);
void qz_aml_mutex(struct qz_aml *a, const char *name);

enum { /* region spaces, §5.5.2.4 */
       QZ_AML_SYSTEM_MEMORY = 0,
       QZ_AML_SYSTEM_IO = 1,
       QZ_AML_PCI_CONFIG = 2,
       QZ_AML_SYSTEM_CMOS = 5,
};
void qz_aml_operation_region(struct qz_aml *a, const char *name, unsigned space, uint64_t offset,
                             uint64_t len);
enum { /* field flags: one of each group */
       QZ_AML_ANY_ACC = 0,
       QZ_AML_BYTE_ACC = 1,
       QZ_AML_WORD_ACC = 2,
       QZ_AML_DWORD_ACC = 3,
       QZ_AML_QWORD_ACC = 4,
       QZ_AML_NO_LOCK = 0,
       QZ_AML_LOCK = 1 << 4,
       QZ_AML_PRESERVE = 0,
       QZ_AML_WRITE_AS_ONES = 1 << 5,
       QZ_AML_WRITE_AS_ZEROS = 2 << 5,
};
void qz_aml_field(struct qz_aml *a, const char *region,
                  unsigned flags); /* opens the list of units */
void qz_aml_index_field(struct qz_aml *a, const char *index, const char *data, unsigned flags);
void qz_aml_field_unit(struct qz_aml *a, const char *name, uint32_t bits); /* one segment */
void qz_aml_field_skip(struct qz_aml *a, uint32_t bits);
void qz_aml_field_offset(struct qz_aml *a, uint32_t byte); /* ASL's Offset (): forward only */
/* CreateByteField (buffer, byte index, name) and its kin; bits is 1 (index in bits), 8, 16, 32
 * or 64. */
void qz_aml_create_field(struct qz_aml *a, struct qz_ax buffer, struct qz_ax index,
                         const char *name, unsigned bits);

/* Code. A bare expression is a statement too: qz_aml_put(a, qz_ax_increment(qz_ax_local(0))). */
void qz_aml_put(struct qz_aml *a, struct qz_ax x); /* also adds an element to an open package */
void qz_aml_package(struct qz_aml *a);             /* a package in a package: opens */
void qz_aml_store(struct qz_aml *a, struct qz_ax value, struct qz_ax target);
void qz_aml_return(struct qz_aml *a, struct qz_ax value);
void qz_aml_return_package(struct qz_aml *a);   /* opens, as name_package */
void qz_aml_return_resources(struct qz_aml *a); /* opens, as name_resources */
void qz_aml_if(struct qz_aml *a, struct qz_ax condition);
void qz_aml_else(struct qz_aml *a);                            /* closes the If, opens its Else */
void qz_aml_else_if(struct qz_aml *a, struct qz_ax condition); /* the whole chain takes one end */
void qz_aml_while(struct qz_aml *a, struct qz_ax condition);
void qz_aml_break(struct qz_aml *a);
void qz_aml_continue(struct qz_aml *a);
void qz_aml_notify(struct qz_aml *a, struct qz_ax object, struct qz_ax value);
void qz_aml_sleep(struct qz_aml *a, struct qz_ax ms);
void qz_aml_stall(struct qz_aml *a, struct qz_ax us);
void qz_aml_release(struct qz_aml *a, const char *mutex);

/* ---- AML: resource descriptors (§6.4), inside name_resources --------------------------------- */

enum { /* memory windows */
       QZ_AML_MEM_RO = 0,
       QZ_AML_MEM_RW = 1,
       QZ_AML_MEM_CACHEABLE = 1 << 1,
       QZ_AML_MEM_WRITE_COMBINING = 2 << 1,
       QZ_AML_MEM_PREFETCHABLE = 3 << 1,
       QZ_AML_CONSUMER =
           1 << 8, /* the device uses the range itself; otherwise it passes it on (a bridge) */
};
enum { /* interrupts: level or edge, high or low */
       QZ_AML_LEVEL = 0,
       QZ_AML_EDGE = 1,
       QZ_AML_ACTIVE_HIGH = 0,
       QZ_AML_ACTIVE_LOW = 2,
       QZ_AML_SHARED = 4,
};
void qz_aml_io(struct qz_aml *a, uint16_t min, uint16_t max, uint8_t align,
               uint8_t len); /* IO (Decode16) */
void qz_aml_irq_no_flags(struct qz_aml *a, unsigned irq);
void qz_aml_irq(struct qz_aml *a, unsigned irq, unsigned flags);
void qz_aml_dma(struct qz_aml *a, unsigned channel); /* compatibility, not a bus master, 8 bits */
void qz_aml_memory32_fixed(struct qz_aml *a, uint32_t base, uint32_t len, unsigned flags);
void qz_aml_interrupt(struct qz_aml *a, uint32_t gsi, unsigned flags); /* extended, consumer */
void qz_aml_interrupts(struct qz_aml *a, const uint32_t *gsis, size_t n, unsigned flags);
/* Windows from min to max inclusive, fixed at both ends. */
void qz_aml_word_bus(struct qz_aml *a, uint16_t min, uint16_t max);
void qz_aml_word_io(struct qz_aml *a, uint16_t min, uint16_t max);
void qz_aml_dword_io(struct qz_aml *a, uint32_t min, uint32_t max);
void qz_aml_dword_memory(struct qz_aml *a, uint32_t min, uint32_t max, unsigned flags);
void qz_aml_qword_memory(struct qz_aml *a, uint64_t min, uint64_t max, unsigned flags);

/* ---- AML: what every PC needs ---------------------------------------------------------------- */

/* Name (_Sn, Package () {type, type, 0, 0}): the SLP_TYP of that state. */
void qz_aml_sleep_state(struct qz_aml *a, unsigned state, unsigned slp_typ);
/* One element of an open _PRT: pin 0..3 of every function of `slot`; link NULL: wired to `gsi`. */
void qz_aml_prt_entry(struct qz_aml *a, unsigned slot, unsigned pin, const char *link,
                      uint32_t gsi);
/* Device (C000), Device (C001) ... with _HID ACPI0007, _UID and, where with_proximity, _PXM. At
 * most 4096. */
void qz_aml_cpu_devices(struct qz_aml *a, const struct qz_acpi_cpu *cpus, size_t n,
                        bool with_proximity);

/* ---- checking -------------------------------------------------------------------------------- */

/*
 * Tables one after another (a block made by qz_acpi_place, or files of a dump concatenated; an RSDP
 * may be among them; zero bytes between are padding): lengths, checksums, and the entries inside
 * the kinds this library makes. Any bytes are safe. Returns the number of tables, or -EBADMSG with
 * the offset and cause.
 */
int qz_acpi_verify(const void *data, size_t len, struct qz_error *err);

/*
 * Follows the pointers as a kernel does: mem holds guest-physical gpa..gpa+len-1, the RSDP is at
 * rsdp_gpa. Returns the number of tables reached (RSDP not counted), or -EBADMSG.
 */
int qz_acpi_verify_linked(const void *mem, size_t len, uint64_t gpa, uint64_t rsdp_gpa,
                          struct qz_error *err);

#endif
