#include "nested/wire.h"

#include <errno.h>
#include <string.h>

#define PUT(m, field, v)              \
	do {                          \
		(m)->has_##field = 1; \
		(m)->field = (v);     \
	} while (0)

void nested_caps_wire_fill(struct nested_caps_wire *w, const struct nested_caps *c)
{
	Godwit__NestedCaps *m = &w->msg;

	godwit__nested_caps__init(m);
	PUT(m, vendor, c->vendor);
	PUT(m, state_bytes, c->state_bytes);
	PUT(m, exception_payload, c->exception_payload);
	PUT(m, triple_fault_event, c->triple_fault_event);
	PUT(m, svm_revision, c->svm_revision);
	PUT(m, svm_asids, c->svm_asids);
	PUT(m, svm_features, c->svm_features);
	for (uint32_t i = 0; i < c->nr_vmx; i++) {
		w->vmx_index[i] = c->vmx[i].index;
		w->vmx_value[i] = c->vmx[i].value;
	}
	m->n_vmx_index = m->n_vmx_value = c->nr_vmx;
	m->vmx_index = w->vmx_index;
	m->vmx_value = w->vmx_value;
}

int nested_caps_wire_parse(const Godwit__NestedCaps *m, struct nested_caps *c, struct err *e)
{
	if (!m->has_vendor || (m->vendor != NESTED_VMX && m->vendor != NESTED_SVM))
		return err_set(e, ERR_STREAM, EBADMSG, "nested capabilities of vendor %u",
			       m->vendor);
	if (m->n_vmx_index != m->n_vmx_value || m->n_vmx_index > NESTED_MAX_VMX_MSRS)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "nested capabilities: %zu MSRs with %zu values", m->n_vmx_index,
			       m->n_vmx_value);
	*c = (struct nested_caps){.vendor = (enum nested_vendor)m->vendor,
				  .state_bytes = m->state_bytes,
				  .exception_payload = m->exception_payload,
				  .triple_fault_event = m->triple_fault_event,
				  .svm_revision = m->svm_revision,
				  .svm_asids = m->svm_asids,
				  .svm_features = m->svm_features,
				  .nr_vmx = (uint32_t)m->n_vmx_index};
	for (uint32_t i = 0; i < c->nr_vmx; i++)
		c->vmx[i] = (struct nested_vmx_msr){m->vmx_index[i], m->vmx_value[i]};
	return 0;
}

static void fill_vmx(Godwit__NestedState *m, const struct kvm_vmx_nested_state_hdr *h)
{
	PUT(m, vmxon_gpa, h->vmxon_pa);
	PUT(m, vmcs12_gpa, h->vmcs12_pa);
	PUT(m, smm_flags, h->smm.flags);
	PUT(m, vmx_flags, h->flags);
	PUT(m, preemption_timer_deadline, h->preemption_timer_deadline);
}

void nested_state_wire_fill(Godwit__NestedState *m, struct nested_state *s)
{
	godwit__nested_state__init(m);
	PUT(m, version, NESTED_STATE_VERSION);
	PUT(m, format, s->kvm.format);
	PUT(m, flags, s->kvm.flags);
	if (s->kvm.format == KVM_STATE_NESTED_FORMAT_SVM)
		PUT(m, vmcb12_gpa, s->kvm.hdr.svm.vmcb_pa);
	else
		fill_vmx(m, &s->kvm.hdr.vmx);
	m->has_data = 1;
	m->data.data = s->bytes + sizeof(s->kvm);
	m->data.len = s->kvm.size - sizeof(s->kvm);
}

static int parse_vmx(const Godwit__NestedState *m, struct kvm_vmx_nested_state_hdr *h,
		     struct err *e)
{
	if (!m->has_vmxon_gpa || !m->has_vmcs12_gpa || m->smm_flags > UINT16_MAX)
		return err_set(e, ERR_STREAM, EBADMSG, "nested state: VMX without its addresses");
	h->vmxon_pa = m->vmxon_gpa;
	h->vmcs12_pa = m->vmcs12_gpa;
	h->smm.flags = (uint16_t)m->smm_flags;
	h->flags = m->vmx_flags;
	h->preemption_timer_deadline = m->preemption_timer_deadline;
	return 0;
}

static int check_header(const Godwit__NestedState *m, struct err *e)
{
	if (!m->has_version || !m->has_format || !m->has_flags || !m->has_data)
		return err_set(e, ERR_STREAM, EBADMSG, "nested state lacks a field");
	if (m->version > NESTED_STATE_VERSION)
		return err_set(e, ERR_UNSUPPORTED, EPROTO,
			       "nested state of version %u, this godwit reads up to %u: update it",
			       m->version, NESTED_STATE_VERSION);
	if (m->format > KVM_STATE_NESTED_FORMAT_SVM || m->flags > UINT16_MAX ||
	    m->data.len > NESTED_STATE_MAX_BYTES - sizeof(struct kvm_nested_state))
		return err_set(e, ERR_STREAM, EBADMSG,
			       "nested state: format %u, flags 0x%x, %zu bytes", m->format,
			       m->flags, m->data.len);
	return 0;
}

int nested_state_wire_parse(const Godwit__NestedState *m, struct nested_state *s, struct err *e)
{
	memset(s, 0, sizeof(*s));
	if (!m)
		return 0;
	if (check_header(m, e) < 0)
		return -e->code;
	s->kvm.format = (uint16_t)m->format;
	s->kvm.flags = (uint16_t)m->flags;
	s->kvm.size = (uint32_t)(sizeof(s->kvm) + m->data.len);
	if (m->data.len)
		memcpy(s->bytes + sizeof(s->kvm), m->data.data, m->data.len);
	if (m->format == KVM_STATE_NESTED_FORMAT_VMX)
		return parse_vmx(m, &s->kvm.hdr.vmx, e);
	s->kvm.hdr.svm.vmcb_pa = m->vmcb12_gpa;
	return 0;
}
