/* server_test.c - a debugger's conversation with a machine that does nothing (fake_target.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gdb/fake_target.h"
#include "gdb/packet.h"
#include "gdb/registers.h"
#include "gdb/server.h"

static struct fake_target fake;
static struct gdb_target target;
static struct gdb_server *server;

static int setup(void **state)
{
    fake_target_new(&fake, &target, false);
    return gdb_server_new(&server, &target);
}

static int setup_patches(void **state)
{
    fake_target_new(&fake, &target, true);
    return gdb_server_new(&server, &target);
}

static int teardown(void **state)
{
    gdb_server_free(server);
    return 0;
}

/* The packet that waits to be sent, unpacked; "" when none does. */
static const char *output(void)
{
    static struct gdb_link reader;
    size_t len, used;
    const uint8_t *data = gdb_server_output(server, &len);

    gdb_link_init(&reader);
    reader.no_ack = true;
    while (len > 0 && *data == '+') { /* what came before was understood */
        data++;
        len--;
        gdb_server_sent(server, 1);
    }
    if (len == 0)
        return "";
    assert_int_equal(gdb_link_input(&reader, data, len, &used), GDB_PACKET);
    assert_int_equal(used, len);
    gdb_server_sent(server, len);
    return (const char *)reader.packet;
}

static void send_packet(const char *text, size_t len)
{
    static struct gdb_link writer;
    struct gdb_reply r = {0};

    gdb_link_init(&writer);
    gdb_put(&r, text, len);
    gdb_link_send(&writer, &r);
    assert_int_equal(gdb_server_input(server, writer.out, writer.out_len), writer.out_len);
}

static const char *ask(const char *text)
{
    send_packet(text, strlen(text));
    return output();
}

static void expect(const char *question, const char *answer)
{
    assert_string_equal(ask(question), answer);
}

static void stop_at(struct gdb_stop stop)
{
    fake.running = false;
    gdb_server_stopped(server, &stop);
}

/* ---- questions ---------------------------------------------------------------------------------
 */

static void test_features(void **state)
{
    char xml[16384] = "";
    size_t len = 0;
    char question[64];
    const char *answer;

    assert_non_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "PacketSize=4000"));
    do { /* in pieces */
        snprintf(question, sizeof(question), "qXfer:features:read:target.xml:%zx,200", len);
        answer = ask(question);
        assert_true(*answer == 'm' || *answer == 'l');
        strcpy(xml + len, answer + 1);
        len += strlen(answer + 1);
    } while (*answer == 'm');
    assert_non_null(strstr(xml, "</target>"));
    assert_non_null(strstr(xml, "org.gnu.gdb.i386.core"));
    assert_string_equal(ask("qXfer:features:read:target.xml:0,3fff") + 1, xml);
    expect("qXfer:features:read:target.xml:ffffffffffffffff,10", "l");
    expect("qXfer:features:read:other.xml:0,10", "E00");
    expect("qUnheardOf", "");
    expect("vMustReplyEmpty", "");
    expect("qAttached", "1");
}

static void test_threads(void **state)
{
    expect("?", "T02thread:1;");
    expect("qfThreadInfo", "m1,2");
    expect("qsThreadInfo", "l");
    expect("qC", "QC1");
    expect("Hg2", "OK");
    expect("qC", "QC2");
    expect("Hg0", "OK"); /* any: stays */
    expect("qC", "QC2");
    expect("Hg3", "E16");
    expect("Hgffffffffffffffff", "E16");
    expect("T2", "OK");
    expect("T3", "E03");
    expect("qThreadExtraInfo,2", "764350552031205b68616c7465645d"); /* vCPU 1 [halted] */
}

/* ---- registers ---------------------------------------------------------------------------------
 */

static void test_registers(void **state)
{
    expect("p10", "5544332211000000"); /* rip */
    expect("Hg2", "OK");
    expect("p10", "5644332211000000");
    expect("P3=efbeadde00000000", "OK"); /* rdx */
    assert_int_equal(fake.state[1].gpr[RDX], 0xdeadbeef);
    assert_int_equal(fake.sets, 1);
    expect("P10=0000000000000080", "E16"); /* rip is not canonical */
    expect("P12=20000000", "E01");         /* cs takes a descriptor */
    expect("P12=10000000", "OK");          /* but it may be set to what it is */
    expect("P3=12", "E16");
    expect("pffff", "E16");
    expect("P11=ff7f2000", "OK"); /* eflags: VM and others stay what they are */
    assert_int_equal(fake.state[1].rflags, 0x207fd7);
}

static void test_all_registers(void **state)
{
    char all[4096], text[4096];
    size_t bytes = 0;

    fake.state[0].xsave[512] = 3;
    memset(fake.state[0].xsave + 160, 0x5a, 16);
    for (unsigned n = 0; n < gdb_register_count(); n++)
        bytes += gdb_register_size(n);
    strcpy(all, ask("g"));
    assert_int_equal(strlen(all), 2 * bytes);
    memcpy(all, "8877665544332211", 16);
    snprintf(text, sizeof(text), "G%s", all);
    expect(text, "OK");
    assert_int_equal(fake.state[0].gpr[RAX], 0x1122334455667788);
    assert_string_equal(ask("g"), all);
    text[strlen(text) - 2] = '\0';
    expect(text, "E16");
}

static void test_x87(void **state)
{
    struct vcpu_state *s = &fake.state[0];

    s->xsave[512] = 0;
    expect("p20", "7f030000"); /* never used: as FINIT leaves it */
    expect("p22", "ffff0000"); /* all empty */
    s->xsave[512] = 1;
    qz_store_le16(s->xsave + 2, 7 << 11); /* TOP 7: ST(0) is physical 7 */
    s->xsave[4] = 0x81;                   /* 7 and 0 */
    qz_store_le64(s->xsave + 32, 1ull << 63);
    qz_store_le16(s->xsave + 40, 0x3fff); /* ST(0) = 1.0, ST(1) = 0 */
    expect("Hg1", "OK");
    gdb_server_free(server); /* states are cached while the machine stands */
    assert_int_equal(gdb_server_new(&server, &target), 0);
    expect("p22", "fd3f0000"); /* 7 valid, 0 zero, others empty */
    expect("p18", "0000000000000080ff3f");
    expect("P22=ffff0000", "OK");
    assert_int_equal(s->xsave[4], 0);
    expect("P28=000102030405060708090a0b0c0d0e0f", "OK"); /* xmm0 */
    assert_int_equal(s->xsave[512], 3);
    assert_int_equal(s->xsave[160 + 15], 0x0f);
    expect("p28", "000102030405060708090a0b0c0d0e0f");
    expect("P38=00000100", "E16"); /* mxcsr: a reserved bit */
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static void test_memory(void **state)
{
    memcpy(fake.memory + FAKE_PAGE, "\x01\x02\x7d\x23", 4);
    expect("m200000,4", "01027d23");
    expect("m200ffe,4", "0000");
    expect("m201000,1", "E0e");
    expect("m200000", "E16");
    expect("M200004,2:abcd", "OK");
    assert_int_equal(fake.memory[FAKE_PAGE + 5], 0xcd);
    expect("M200004,3:abcd", "E16");
    expect("M201000,1:00", "E0e");
    expect("X200008,0:", "OK"); /* GDB asks so whether X is known */
    send_packet("X200008,3:#$}", 13);
    assert_string_equal(output(), "OK");
    assert_memory_equal(fake.memory + FAKE_PAGE + 8, "#$}", 3);
    expect("X200008,3:ab", "E16");
    assert_memory_equal(ask("x200008,3"), "b#$}", 4);
    expect("m0,ffffffffffffffff", ask("m0,2000")); /* cut to a packet */
}

static void test_monitor(void **state)
{
    expect("qRcmd,706879736963616c206f6e", "616464726573736573206172652070687973696"
                                           "3616c206e6f770a"); /* physical on */
    expect("m201000,1", "E0e");
    fake.memory[0x123] = 0x77;
    expect("m123,1", "77");
    expect("qRcmd,7265736574", ask("qRcmd,7265736574")); /* reset */
    assert_int_equal(fake.resets, 2);
    assert_true(strlen(ask("qRcmd,68656c70")) > 100); /* help */
    assert_true(strlen(ask("qRcmd,")) > 100);
    expect("qRcmd,7", "E16");
    assert_true(strlen(ask("qRcmd,ff00ff")) > 10); /* no such command */
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void test_running(void **state)
{
    expect("vCont?", "vCont;c;C;s;S;r");
    expect("vCont;s:2;c", "");
    assert_true(fake.running);
    assert_int_equal(fake.action[0].kind, GDB_CONTINUE);
    assert_int_equal(fake.action[1].kind, GDB_STEP);
    expect("g", "E10"); /* busy */
    stop_at((struct gdb_stop){.kind = GDB_STOP_STEP, .cpu = 1});
    assert_string_equal(output(), "T05thread:2;");
    expect("qC", "QC2");
    expect("vCont;r1000,1010:1", "");
    assert_int_equal(fake.action[0].range_end, 0x1010);
    assert_int_equal(fake.action[1].kind, GDB_STAY);
    assert_int_equal(gdb_server_input(server, (const uint8_t *)"\x03", 1), 1);
    assert_string_equal(output(), "T02thread:2;");
    assert_int_equal(fake.stops, 1);
    assert_int_equal(gdb_server_input(server, (const uint8_t *)"\x03", 1), 1); /* stands already */
    assert_string_equal(output(), "");
    assert_int_equal(fake.stops, 1);
}

static void test_bad_orders(void **state)
{
    static const char *const bad[] = {
        "vCont;",    "vCont;s:3",          "vCont;x", "vCont;c:", "vCont;r5", "vCont;r5,4", "vCont",
        "vCont;c;;", "c12345678123456781", "C",       "czz"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++)
        expect(bad[i], "E16");
    assert_int_equal(fake.resumes, 0);
}

static void test_continue_elsewhere(void **state)
{
    expect("c1000", "");
    assert_int_equal(fake.state[0].rip, 0x1000);
    stop_at((struct gdb_stop){.kind = GDB_STOP_CRASH});
    assert_string_equal(output(), "T0bthread:1;");
    expect("S0b", "");
    assert_int_equal(fake.action[0].kind, GDB_STEP);
    gdb_server_exited(server, 70);
    assert_string_equal(output(), "W46");
    assert_true(gdb_server_is_over(server));
}

/* ---- points ------------------------------------------------------------------------------------
 */

static void test_points(void **state)
{
    ask("qSupported:swbreak+;hwbreak+");
    expect("Z0,1000,1", "OK");
    expect("Z0,1000,1", "OK"); /* again: once */
    assert_int_equal(fake.points, 1);
    expect("Z2,2001,7", "OK");
    assert_int_equal(fake.points, 2);
    assert_int_equal(fake.point[1].kind, POINT_WRITE);
    assert_int_equal(fake.point[1].len, 7);
    expect("c", "");
    stop_at((struct gdb_stop){.kind = GDB_STOP_POINT, .point = fake.point[0]});
    assert_string_equal(output(), "T05thread:1;swbreak:;");
    expect("c", "");
    stop_at((struct gdb_stop){.kind = GDB_STOP_POINT, .cpu = 1, .point = fake.point[1]});
    assert_string_equal(output(), "T05thread:2;watch:2001;");
    expect("z0,1000,1", "OK");
    expect("z0,1000,1", "OK");
    assert_int_equal(fake.points, 1);
    expect("Z2,ffffffffffffffff,2", "E16");
    expect("Z2,1000,0", "E16");
    expect("Z2,1000,1001", "E16");
    expect("Z5,1000,1", "");
    expect("Z0,1000,1;X1,00", "E16");
    fake.points_max = 1;
    expect("Z1,3000,1", "E1c");
    assert_int_equal(fake.points, 1);
}

static void test_too_many_points(void **state)
{
    char text[32];

    for (unsigned i = 0; i < ACCEL_POINTS_MAX; i++) {
        snprintf(text, sizeof(text), "Z1,%x,1", i + 1);
        expect(text, "OK");
    }
    expect("Z1,5000,1", "E1c");
}

static void test_patches(void **state)
{
    uint8_t *code = fake.memory + FAKE_PAGE + 0x10;

    memcpy(code, "\x90\x91\x92\x93", 4);
    expect("Z0,200011,1", "OK");
    assert_int_equal(code[1], 0xcc);
    expect("m200010,4", "90919293");  /* it is not seen */
    expect("M200010,3:a0a1a2", "OK"); /* and written under */
    assert_memory_equal(code, "\xa0\xcc\xa2", 3);
    expect("m200010,4", "a0a1a293");
    expect("Z0,ffff800000005011,1", "OK"); /* the same byte by another address */
    expect("z0,200011,1", "OK");
    assert_int_equal(code[1], 0xcc);
    expect("z0,ffff800000005011,1", "OK");
    assert_int_equal(code[1], 0xa1);
    expect("Z1,200012,1", "OK"); /* hardware: not in memory */
    assert_int_equal(code[2], 0xa2);
    expect("Z0,201000,1", "E0e");
    expect("Z0,200013,1", "OK");
    code[3] = 0x55; /* the guest overwrote it */
    expect("D", "OK");
    assert_int_equal(code[3], 0x55);
    assert_int_equal(fake.points, 0);
    assert_true(fake.running);
    assert_true(gdb_server_is_over(server));
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void test_lost_connection(void **state)
{
    expect("Z0,200011,1", "OK");
    expect("c", "");
    gdb_server_detach(server); /* while it runs: stopped, cleaned, let go */
    assert_int_equal(fake.stops, 1);
    assert_int_equal(fake.points, 0);
    assert_true(fake.running);
}

static void test_kill(void **state)
{
    expect("vKill;1", "OK");
    assert_int_equal(fake.kills, 1);
    assert_true(gdb_server_is_over(server));
    gdb_server_free(server);
    assert_int_equal(gdb_server_new(&server, &target), 0);
    expect("c", "");
    expect("k", ""); /* also while it runs */
    assert_int_equal(fake.kills, 2);
}

static void test_no_ack(void **state)
{
    size_t len;

    expect("QStartNoAckMode", "OK");
    send_packet("qC", 2);
    assert_int_equal(*gdb_server_output(server, &len), '$');
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_features),
        T(test_threads),
        T(test_registers),
        T(test_all_registers),
        T(test_x87),
        T(test_memory),
        T(test_monitor),
        T(test_running),
        T(test_bad_orders),
        T(test_continue_elsewhere),
        T(test_points),
        T(test_too_many_points),
        cmocka_unit_test_setup_teardown(test_patches, setup_patches, teardown),
        cmocka_unit_test_setup_teardown(test_lost_connection, setup_patches, teardown),
        T(test_kill),
        T(test_no_ack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
