#include "nested/view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "nested/vmcb.h"
#include "nested/vmcs12.h"

#define PRIMARY_SECONDARY (1u << 31)
#define SECONDARY_EPT     (1u << 1)
#define NESTED_CTL_NPT    1u

static uint64_t u64_at(const struct nested_state *s, size_t offset)
{
	uint64_t v;

	memcpy(&v, s->bytes + sizeof(s->kvm) + offset, sizeof(v));
	return v;
}

static uint32_t u32_at(const struct nested_state *s, size_t offset)
{
	return (uint32_t)u64_at(s, offset);
}

static void decode_svm(const struct nested_state *s, struct nested_view *v)
{
	v->vendor = NESTED_SVM;
	v->gif = s->kvm.flags & KVM_STATE_NESTED_GIF_SET;
	if (!v->in_l2)
		return;
	v->control_gpa = s->kvm.hdr.svm.vmcb_pa;
	v->nested_paging = u64_at(s, VMCB_NESTED_CTL) & NESTED_CTL_NPT;
	v->nested_cr3 = v->nested_paging ? u64_at(s, VMCB_NESTED_CR3) : 0;
	v->l1_rip = u64_at(s, VMCB_SAVE_RIP);
	v->injected = u32_at(s, VMCB_EVENT_INJ);
	v->asid = u32_at(s, VMCB_ASID);
}

/* The CPU looks at the secondary controls only where the primary ones say so (SDM vol. 3C,
 * "Processor-Based VM-Execution Controls"); else they are what was last written there. */
static bool has_ept(const struct nested_state *s)
{
	return u32_at(s, VMCS12_PRIMARY_CONTROLS) & PRIMARY_SECONDARY &&
	       u32_at(s, VMCS12_SECONDARY_CONTROLS) & SECONDARY_EPT;
}

static void decode_vmx(const struct nested_state *s, struct nested_view *v)
{
	v->vendor = NESTED_VMX;
	v->gif = true;
	v->step_pending = s->kvm.flags & KVM_STATE_NESTED_MTF_PENDING;
	v->smm = s->kvm.hdr.vmx.smm.flags & KVM_STATE_NESTED_SMM_GUEST_MODE;
	v->timer = s->kvm.hdr.vmx.flags & KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE;
	v->vmxon_gpa = s->kvm.hdr.vmx.vmxon_pa;
	v->control_gpa = s->kvm.hdr.vmx.vmcs12_pa;
	if (!v->in_l2)
		return;
	v->nested_paging = has_ept(s);
	v->nested_cr3 = v->nested_paging ? u64_at(s, VMCS12_EPT_POINTER) : 0;
	v->l1_rip = u64_at(s, VMCS12_HOST_RIP);
	v->injected = u32_at(s, VMCS12_ENTRY_INTR_INFO);
}

void nested_view_decode(const struct nested_state *s, struct nested_view *v)
{
	*v = (struct nested_view){.vmxon_gpa = NESTED_NO_GPA, .control_gpa = NESTED_NO_GPA};
	if (nested_state_is_none(s))
		return;
	v->in_l2 = s->kvm.flags & KVM_STATE_NESTED_GUEST_MODE;
	v->run_pending = s->kvm.flags & KVM_STATE_NESTED_RUN_PENDING;
	if (s->kvm.format == KVM_STATE_NESTED_FORMAT_SVM)
		decode_svm(s, v);
	else
		decode_vmx(s, v);
}

struct line {
	char *text;
	size_t cap, used;
};

static void say(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->text + l->used, l->cap - l->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->used += (size_t)n < l->cap - l->used ? (size_t)n : l->cap - l->used - 1;
}

static void say_l2(struct line *l, const struct nested_view *v)
{
	say(l, ", %s", v->nested_paging ? "nested paging" : "shadow paging");
	if (v->nested_paging)
		say(l, " by 0x%" PRIx64, v->nested_cr3);
	if (v->asid)
		say(l, ", ASID %u", v->asid);
	if (v->injected >> 31)
		say(l, ", injecting 0x%x", v->injected);
	say(l, ", L1 goes on at 0x%" PRIx64, v->l1_rip);
}

void nested_view_text(const struct nested_view *v, char *out, size_t cap)
{
	struct line l = {.text = out, .cap = cap};

	out[0] = '\0';
	if (v->vendor == NESTED_NONE) {
		say(&l, "no nesting");
		return;
	}
	say(&l, "%s: in %s", nested_vendor_name(v->vendor), v->in_l2 ? "L2" : "L1");
	if (v->run_pending)
		say(&l, ", entry pending");
	if (v->step_pending)
		say(&l, ", step pending");
	if (v->timer)
		say(&l, ", preemption timer runs");
	if (!v->gif)
		say(&l, ", GIF clear");
	if (v->smm)
		say(&l, ", interrupted by SMM");
	if (v->control_gpa != NESTED_NO_GPA)
		say(&l, ", %s at 0x%" PRIx64, v->vendor == NESTED_SVM ? "VMCB" : "VMCS",
		    v->control_gpa);
	if (v->vmxon_gpa != NESTED_NO_GPA)
		say(&l, ", VMXON at 0x%" PRIx64, v->vmxon_gpa);
	if (v->in_l2)
		say_l2(&l, v);
}
