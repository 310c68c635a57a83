/*
 * net.c - Ethernet, ARP, IPv4 and UDP, as little as it takes (net.h; RFC 826, 791, 768).
 *
 * What is sent comes back from the host. Of this life it must come back in order, whole, and not
 * before it was sent; echoes of other lives are none of ours.
 */
#include "net.h"

#include "counter.h"
#include "datagram.h"
#include "nic.h"
#include "platform.h"

void *memcpy(void *restrict to, const void *restrict from, unsigned long n);
int memcmp(const void *a, const void *b, unsigned long n);

enum { ETHERNET = 14, ARP = 28, IP = 20, UDP = 8, TYPE_IP = 0x0800, TYPE_ARP = 0x0806 };
enum { PROTOCOL_UDP = 17, OWN_PORT = 1024, REQUEST = 1, REPLY = 2 };
#define GENERATION ((const volatile uint64_t *)0xfed60000)

static const uint8_t own_ip[4] = {10, 0, 2, 15}, host_ip[4] = {10, 0, 2, 2};
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static uint8_t mac[6];
static unsigned port; /* 0: no network */
static uint64_t count, echoes, last_echo, generation[2];

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put_ethernet(uint8_t *f, const uint8_t to[6], unsigned type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, mac, 6);
    put16(f + 12, type);
}

/* ---- out ---- */

static unsigned ip_sum(const uint8_t *p)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < IP; i += 2)
        sum += get16(p + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16)) & 0xffff;
}

/* UDP's own checksum may be left out over IPv4. */
static void put_headers(uint8_t *f)
{
    uint8_t *ip = f + ETHERNET, *udp = ip + IP;

    put_ethernet(f, everybody, TYPE_IP);
    ip[0] = 0x45;
    ip[1] = 0;
    put16(ip + 2, IP + UDP + sizeof(struct datagram));
    put16(ip + 4, (unsigned)count & 0xffff);
    put16(ip + 6, 0);
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    put16(ip + 10, 0);
    memcpy(ip + 12, own_ip, 4);
    memcpy(ip + 16, host_ip, 4);
    put16(ip + 10, ip_sum(ip));
    put16(udp, OWN_PORT);
    put16(udp + 2, port);
    put16(udp + 4, UDP + sizeof(struct datagram));
    put16(udp + 6, 0);
}

/* A machine may be frozen between the halves, and go on as another: both are read until they are of
 * one moment. */
static void read_generation(uint64_t now[2])
{
    do {
        now[0] = GENERATION[0];
        now[1] = GENERATION[1];
    } while (now[0] != GENERATION[0] || now[1] != GENERATION[1]);
}

static void learn_generation(void)
{
    uint64_t now[2];

    read_generation(now);
    if (now[0] == generation[0] && now[1] == generation[1])
        return;
    generation[0] = now[0];
    generation[1] = now[1];
    last_echo = 0;
}

static void send_count(void)
{
    struct datagram d;
    uint8_t *f = nic_room();

    learn_generation();
    d.generation[0] = generation[0];
    d.generation[1] = generation[1];
    d.count = count;
    d.echoes = echoes;
    datagram_complete(&d);
    put_headers(f);
    memcpy(f + ETHERNET + IP + UDP, &d, sizeof(d));
    nic_send(ETHERNET + IP + UDP + sizeof(d));
}

/* ---- in ---- */

static void take_echo(const uint8_t *udp, unsigned len)
{
    struct datagram d;

    expect("a datagram's length", UDP + sizeof(d), get16(udp + 4));
    if (len < UDP + sizeof(d))
        fail("the bytes of a datagram", UDP + sizeof(d), len);
    memcpy(&d, udp + UDP, sizeof(d));
    expect("an echo is whole", true, datagram_is_whole(&d));
    learn_generation();
    if (d.generation[0] != generation[0] || d.generation[1] != generation[1])
        return;
    if (d.count <= last_echo || d.count > count)
        fail("an echo's count", last_echo + 1, d.count);
    last_echo = d.count;
    echoes++;
}

/* libslirp asks who has our address when it is new, as after each restoring. */
static void answer_arp(const uint8_t *f)
{
    uint8_t *to;

    if (get16(f + ETHERNET + 6) != REQUEST || memcmp(f + ETHERNET + 24, own_ip, 4))
        return;
    to = nic_room();
    put_ethernet(to, f + 6, TYPE_ARP);
    memcpy(to + ETHERNET, f + ETHERNET, 6);
    put16(to + ETHERNET + 6, REPLY);
    memcpy(to + ETHERNET + 8, mac, 6);
    memcpy(to + ETHERNET + 14, own_ip, 4);
    memcpy(to + ETHERNET + 18, f + ETHERNET + 8, 10);
    nic_send(ETHERNET + ARP);
    nic_ring();
}

static void take_frame(const uint8_t *f, unsigned len)
{
    const uint8_t *ip = f + ETHERNET;

    if (len >= ETHERNET + ARP && get16(f + 12) == TYPE_ARP)
        answer_arp(f);
    if (len < ETHERNET + IP + UDP || get16(f + 12) != TYPE_IP || ip[0] != 0x45 ||
        ip[9] != PROTOCOL_UDP || get16(ip + IP + 2) != OWN_PORT)
        return;
    take_echo(ip + IP, len - ETHERNET - IP);
}

static void receive(void)
{
    const uint8_t *f;
    unsigned len;

    while ((len = nic_receive(&f))) {
        take_frame(f, len);
        nic_give_back();
    }
}

/* ---- both ---- */

/* bare_word() tells whether the command line has this in it: the number is found digit by digit. */
static unsigned word_number(const char *name)
{
    char text[16];
    unsigned n = 0, v = 0;

    while (name[n]) {
        text[n] = name[n];
        n++;
    }
    text[n + 1] = '\0';
    for (char digit = '0'; digit <= '9' && n + 2 < sizeof(text); digit++) {
        text[n] = digit;
        if (!bare_word(text))
            continue;
        v = 10 * v + (unsigned)(digit - '0');
        text[++n + 1] = '\0';
        digit = '0' - 1;
    }
    return v;
}

void net_start(void)
{
    port = word_number("net=");
    if (port && !nic_start(mac))
        fail("network devices", 1, 0);
}

void net_line(uint64_t line)
{
    if (!port)
        return;
    for (unsigned i = 0; i < DATAGRAMS_PER_LINE; i++) {
        count = line * DATAGRAMS_PER_LINE + i;
        send_count();
    }
    /* Every other time the device is not told: half of all snapshots find datagrams in the ring,
     * and who goes on from there has to send them. */
    if (line % 2 == 0)
        nic_ring();
    receive();
}
