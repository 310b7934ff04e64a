#include "vmm/vcpu_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PUT(m, field, v)              \
	do {                          \
		(m)->has_##field = 1; \
		(m)->field = (v);     \
	} while (0)

/* Every general register has the same name in KVM's struct and in the message. */
/* Version 14 formats this differently each time: */
/* clang-format off */
#define FOR_EACH_REG(X) \
	X(rax) X(rbx) X(rcx) X(rdx) X(rsi) X(rdi) X(rsp) X(rbp) X(r8) X(r9) X(r10) X(r11) \
	X(r12) X(r13) X(r14) X(r15) X(rip) X(rflags)
/* clang-format on */

#define FOR_EACH_SEGMENT(X) X(cs) X(ds) X(es) X(fs) X(gs) X(ss) X(tr) X(ldt)

#define FOR_EACH_CONTROL(X) X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(efer) X(apic_base)

static void fill_regs(Godwit__Regs *m, const struct kvm_regs *r)
{
	godwit__regs__init(m);
#define X(name) PUT(m, name, r->name);
	FOR_EACH_REG(X)
#undef X
}

static uint32_t segment_rights(const struct kvm_segment *s)
{
	return (s->type & 0xfu) | (s->s & 1u) << 4 | (s->dpl & 3u) << 5 | (s->present & 1u) << 7 |
	       (s->avl & 1u) << 12 | (s->l & 1u) << 13 | (s->db & 1u) << 14 | (s->g & 1u) << 15 |
	       (s->unusable & 1u) << 16;
}

static void fill_segment(Godwit__Segment *m, const struct kvm_segment *s)
{
	godwit__segment__init(m);
	PUT(m, start, s->base);
	PUT(m, limit, s->limit);
	PUT(m, selector, s->selector);
	PUT(m, rights, segment_rights(s));
}

static void fill_sregs(struct vcpu_wire *w, const struct kvm_sregs2 *s)
{
	Godwit__Sregs *m = &w->sregs;
	Godwit__Segment *next = w->segments;

	godwit__sregs__init(m);
#define X(name)                       \
	fill_segment(next, &s->name); \
	m->name = next++;
	FOR_EACH_SEGMENT(X)
#undef X
#define X(name) PUT(m, name, s->name);
	FOR_EACH_CONTROL(X)
#undef X
	PUT(m, gdt_base, s->gdt.base);
	PUT(m, gdt_limit, s->gdt.limit);
	PUT(m, idt_base, s->idt.base);
	PUT(m, idt_limit, s->idt.limit);
	if (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) {
		for (int i = 0; i < 4; i++)
			w->pdptrs[i] = s->pdptrs[i];
		m->n_pdptrs = 4;
		m->pdptrs = w->pdptrs;
	}
}

static void fill_debugregs(struct vcpu_wire *w, const struct kvm_debugregs *d)
{
	godwit__debug_regs__init(&w->debugregs);
	for (int i = 0; i < 4; i++)
		w->db[i] = d->db[i];
	w->debugregs.n_db = 4;
	w->debugregs.db = w->db;
	PUT(&w->debugregs, dr6, d->dr6);
	PUT(&w->debugregs, dr7, d->dr7);
}

static void fill_bytes(protobuf_c_boolean *has, ProtobufCBinaryData *out, void *data, size_t len)
{
	*has = 1;
	out->data = data;
	out->len = len;
}

void vcpu_wire_fill(struct vcpu_wire *w, struct vcpu_state *s)
{
	Godwit__VcpuState *m = &w->msg;

	godwit__vcpu_state__init(m);
	PUT(m, id, s->id);
	cpuid_to_words(&s->cpuid, w->cpuid);
	m->n_cpuid = (size_t)s->cpuid.nr * CPUID_ENTRY_WORDS;
	m->cpuid = w->cpuid;
	PUT(m, tsc_khz, s->tsc_khz);
	PUT(m, mp_state, s->mp_state.mp_state);
	fill_regs(&w->regs, &s->regs);
	m->regs = &w->regs;
	fill_sregs(w, &s->sregs);
	m->sregs = &w->sregs;
	fill_bytes(&m->has_xsave, &m->xsave, s->xsave, s->xsave_bytes);
	for (uint32_t i = 0; i < s->xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
		w->xcrs[2 * i] = s->xcrs.xcrs[i].xcr;
		w->xcrs[2 * i + 1] = s->xcrs.xcrs[i].value;
		m->n_xcrs += 2;
	}
	m->xcrs = w->xcrs;
	fill_debugregs(w, &s->debugregs);
	m->debugregs = &w->debugregs;
	fill_bytes(&m->has_lapic, &m->lapic, &s->lapic, sizeof(s->lapic));
	fill_bytes(&m->has_events, &m->events, &s->events, sizeof(s->events));
	m->n_msr_index = m->n_msr_value = s->msrs.nr;
	m->msr_index = s->msrs.index;
	m->msr_value = s->msrs.value;
	PUT(m, tsc, s->tsc);
	PUT(m, tsc_realtime_ns, s->tsc_realtime_ns);
	if (!nested_state_is_none(&s->nested)) {
		nested_state_wire_fill(&w->nested, &s->nested);
		m->nested = &w->nested;
	}
}

static int missing(const char *what, struct err *e)
{
	return err_set(e, ERR_STREAM, EBADMSG, "vCPU state without %s", what);
}

#define GET(m, field, to, e)                         \
	do {                                         \
		if (!(m)->has_##field)               \
			return missing(#field, (e)); \
		(to) = (m)->field;                   \
	} while (0)

static int parse_regs(const Godwit__Regs *m, struct kvm_regs *r, struct err *e)
{
	if (!m)
		return missing("regs", e);
#define X(name) GET(m, name, r->name, e);
	FOR_EACH_REG(X)
#undef X
	return 0;
}

static int parse_segment(const Godwit__Segment *m, const char *name, struct kvm_segment *s,
			 struct err *e)
{
	if (!m || !m->has_start || !m->has_limit || !m->has_selector || !m->has_rights)
		return missing(name, e);
	if (m->selector > UINT16_MAX || (m->rights & ~0x1f0ffu))
		return err_set(e, ERR_STREAM, EBADMSG,
			       "vCPU state: segment %s with selector 0x%x, rights 0x%x", name,
			       m->selector, m->rights);
	*s = (struct kvm_segment){.base = m->start,
				  .limit = m->limit,
				  .selector = (uint16_t)m->selector,
				  .type = m->rights & 0xf,
				  .s = m->rights >> 4 & 1,
				  .dpl = m->rights >> 5 & 3,
				  .present = m->rights >> 7 & 1,
				  .avl = m->rights >> 12 & 1,
				  .l = m->rights >> 13 & 1,
				  .db = m->rights >> 14 & 1,
				  .g = m->rights >> 15 & 1,
				  .unusable = m->rights >> 16 & 1};
	return 0;
}

static int parse_table(bool has, uint64_t base, uint32_t limit, const char *name,
		       struct kvm_dtable *t, struct err *e)
{
	if (!has)
		return missing(name, e);
	if (limit > UINT16_MAX)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: %s with limit 0x%x", name,
			       limit);
	*t = (struct kvm_dtable){.base = base, .limit = (uint16_t)limit};
	return 0;
}

static int parse_sregs(const Godwit__Sregs *m, struct kvm_sregs2 *s, struct err *e)
{
	int ret;

	if (!m)
		return missing("sregs", e);
#define X(name)                                           \
	ret = parse_segment(m->name, #name, &s->name, e); \
	if (ret < 0)                                      \
		return ret;
	FOR_EACH_SEGMENT(X)
#undef X
#define X(name) GET(m, name, s->name, e);
	FOR_EACH_CONTROL(X)
#undef X
	ret = parse_table(m->has_gdt_base && m->has_gdt_limit, m->gdt_base, m->gdt_limit, "gdt",
			  &s->gdt, e);
	if (ret == 0)
		ret = parse_table(m->has_idt_base && m->has_idt_limit, m->idt_base, m->idt_limit,
				  "idt", &s->idt, e);
	if (ret < 0)
		return ret;
	if (m->n_pdptrs != 0 && m->n_pdptrs != 4)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: %zu PDPTRs", m->n_pdptrs);
	for (size_t i = 0; i < m->n_pdptrs; i++)
		s->pdptrs[i] = m->pdptrs[i];
	s->flags = m->n_pdptrs ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0;
	return 0;
}

static int parse_debugregs(const Godwit__DebugRegs *m, struct kvm_debugregs *d, struct err *e)
{
	if (!m || m->n_db != 4)
		return missing("debugregs", e);
	for (int i = 0; i < 4; i++)
		d->db[i] = m->db[i];
	GET(m, dr6, d->dr6, e);
	GET(m, dr7, d->dr7, e);
	return 0;
}

static int parse_xcrs(const Godwit__VcpuState *m, struct kvm_xcrs *x, struct err *e)
{
	if (m->n_xcrs % 2 || m->n_xcrs / 2 > KVM_MAX_XCRS)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: %zu words of XCRs", m->n_xcrs);
	x->nr_xcrs = (uint32_t)(m->n_xcrs / 2);
	for (uint32_t i = 0; i < x->nr_xcrs; i++) {
		if (m->xcrs[2 * i] > UINT32_MAX)
			return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: an unknown XCR");
		x->xcrs[i].xcr = (uint32_t)m->xcrs[2 * i];
		x->xcrs[i].value = m->xcrs[2 * i + 1];
	}
	return 0;
}

static int parse_msrs(const Godwit__VcpuState *m, struct msr_values *v, struct err *e)
{
	if (m->n_msr_index != m->n_msr_value || m->n_msr_index > VCPU_MAX_MSRS)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: %zu MSRs with %zu values",
			       m->n_msr_index, m->n_msr_value);
	v->nr = (uint32_t)m->n_msr_index;
	if (v->nr == 0)
		return 0;
	memcpy(v->index, m->msr_index, v->nr * sizeof(v->index[0]));
	memcpy(v->value, m->msr_value, v->nr * sizeof(v->value[0]));
	return 0;
}

static int parse_bytes(bool has, const ProtobufCBinaryData *b, const char *name, void *to,
		       size_t len, struct err *e)
{
	if (!has)
		return missing(name, e);
	if (b->len != len)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: %s of %zu bytes, %zu expected",
			       name, b->len, len);
	memcpy(to, b->data, len);
	return 0;
}

static int parse_xsave(const Godwit__VcpuState *m, struct vcpu_state *s, struct err *e)
{
	size_t len = m->xsave.len;
	int ret;

	if (!m->has_xsave)
		return missing("xsave", e);
	if (len < VCPU_XSAVE_MIN_BYTES || len > VCPU_XSAVE_MAX_BYTES || len % 4)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: xsave of %zu bytes", len);
	ret = vcpu_state_init(s, (uint32_t)len, e);
	if (ret == 0)
		memcpy(s->xsave, m->xsave.data, len);
	return ret;
}

/* Only states KVM gives out on x86; it would refuse others with a bare EINVAL. */
static int check_mp_state(uint32_t mp_state, struct err *e)
{
	if (mp_state > KVM_MP_STATE_SIPI_RECEIVED)
		return err_set(e, ERR_STREAM, EBADMSG, "vCPU state: MP state %u", mp_state);
	return 0;
}

int vcpu_wire_parse(const Godwit__VcpuState *m, struct vcpu_state *s, struct err *e)
{
	int ret;

	memset(s, 0, sizeof(*s));
	ret = parse_xsave(m, s, e);
	if (ret < 0)
		return ret;
	GET(m, id, s->id, e);
	GET(m, tsc_khz, s->tsc_khz, e);
	GET(m, mp_state, s->mp_state.mp_state, e);
	GET(m, tsc, s->tsc, e);
	GET(m, tsc_realtime_ns, s->tsc_realtime_ns, e);
	ret = check_mp_state(s->mp_state.mp_state, e);
	if (ret == 0)
		ret = cpuid_from_words(m->cpuid, m->n_cpuid, &s->cpuid, e);
	if (ret == 0)
		ret = parse_regs(m->regs, &s->regs, e);
	if (ret == 0)
		ret = parse_sregs(m->sregs, &s->sregs, e);
	if (ret == 0)
		ret = parse_xcrs(m, &s->xcrs, e);
	if (ret == 0)
		ret = parse_debugregs(m->debugregs, &s->debugregs, e);
	if (ret == 0)
		ret = parse_bytes(m->has_lapic, &m->lapic, "lapic", &s->lapic, sizeof(s->lapic), e);
	if (ret == 0)
		ret = parse_bytes(m->has_events, &m->events, "events", &s->events,
				  sizeof(s->events), e);
	if (ret == 0)
		ret = parse_msrs(m, &s->msrs, e);
	if (ret == 0)
		ret = nested_state_wire_parse(m->nested, &s->nested, e);
	return ret;
}
