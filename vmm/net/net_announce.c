#include "vmm/net/net_announce.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <string.h>

#define RARP_REVERSE_REQUEST 3 /* RFC 903 */

_Static_assert(sizeof(struct ether_header) + sizeof(struct ether_arp) == ANNOUNCE_LEARN_BYTES,
	       "an ARP packet for IPv4 in an Ethernet frame");

uint32_t announce_delay_ms(const struct announce_params *p, uint32_t round)
{
	uint64_t delay = p->initial_ms + (uint64_t)round * p->step_ms;

	return delay < p->max_ms ? (uint32_t)delay : p->max_ms;
}

static void fill(uint8_t frame[ANNOUNCE_FRAME_BYTES], uint16_t type, uint16_t operation,
		 const uint8_t mac[NET_MAC_BYTES], struct ether_arp *arp)
{
	struct ether_header eth = {.ether_type = htons(type)};

	memset(eth.ether_dhost, 0xff, sizeof(eth.ether_dhost));
	memcpy(eth.ether_shost, mac, sizeof(eth.ether_shost));
	arp->arp_hrd = htons(ARPHRD_ETHER);
	arp->arp_pro = htons(ETHERTYPE_IP);
	arp->arp_hln = NET_MAC_BYTES;
	arp->arp_pln = 4;
	arp->arp_op = htons(operation);
	memcpy(arp->arp_sha, mac, sizeof(arp->arp_sha));
	memset(frame, 0, ANNOUNCE_FRAME_BYTES);
	memcpy(frame, &eth, sizeof(eth));
	memcpy(frame + sizeof(eth), arp, sizeof(*arp));
}

void announce_rarp(const uint8_t mac[NET_MAC_BYTES], uint8_t frame[ANNOUNCE_FRAME_BYTES])
{
	struct ether_arp arp = {.arp_pln = 4};

	memcpy(arp.arp_tha, mac, sizeof(arp.arp_tha));
	fill(frame, ETHERTYPE_REVARP, RARP_REVERSE_REQUEST, mac, &arp);
}

void announce_arp(const uint8_t mac[NET_MAC_BYTES], const uint8_t ipv4[4],
		  uint8_t frame[ANNOUNCE_FRAME_BYTES])
{
	struct ether_arp arp = {.arp_pln = 4};

	memcpy(arp.arp_spa, ipv4, sizeof(arp.arp_spa));
	memcpy(arp.arp_tpa, ipv4, sizeof(arp.arp_tpa));
	fill(frame, ETHERTYPE_ARP, ARPOP_REQUEST, mac, &arp);
}

static bool is_ipv4_arp(const struct ether_header *eth, const struct ether_arp *arp)
{
	return eth->ether_type == htons(ETHERTYPE_ARP) && arp->arp_hrd == htons(ARPHRD_ETHER) &&
	       arp->arp_pro == htons(ETHERTYPE_IP) && arp->arp_hln == NET_MAC_BYTES &&
	       arp->arp_pln == 4;
}

/* To the front; what was there moves back, and the oldest falls out. */
static bool note(struct announce_addresses *a, const uint8_t ipv4[4])
{
	uint32_t at = 0;

	while (at < a->nr && memcmp(a->ipv4[at], ipv4, 4) != 0)
		at++;
	if (at == 0 && a->nr)
		return false;
	if (at == a->nr && a->nr < ANNOUNCE_MAX_ADDRESSES)
		a->nr++;
	if (at == ANNOUNCE_MAX_ADDRESSES)
		at--;
	memmove(a->ipv4[1], a->ipv4[0], (size_t)4 * at);
	memcpy(a->ipv4[0], ipv4, 4);
	return true;
}

bool announce_learn(struct announce_addresses *a, const uint8_t mac[NET_MAC_BYTES],
		    const uint8_t *frame, size_t len)
{
	static const uint8_t nobody[4];
	struct ether_header eth;
	struct ether_arp arp;

	if (len < ANNOUNCE_LEARN_BYTES)
		return false;
	memcpy(&eth, frame, sizeof(eth));
	memcpy(&arp, frame + sizeof(eth), sizeof(arp));
	/* Somebody else's packet that the guest only forwards says nothing about the guest; an ARP
	 * probe (RFC 5227, 2.1.1) has no address yet. */
	if (!is_ipv4_arp(&eth, &arp) || memcmp(arp.arp_sha, mac, NET_MAC_BYTES) != 0 ||
	    !memcmp(arp.arp_spa, nobody, sizeof(nobody)))
		return false;
	return note(a, arp.arp_spa);
}
