/*
 * KVM's VMCS12, as it lies in nested state: a page whose layout its first word, the revision, names
 * and Linux promises not to change (arch/x86/kvm/vmx/vmcs12.h, CHECK_OFFSET). Offsets in bytes.
 */
#pragma once

#define VMCS12_REVISION             0x11e57ed0u
#define VMCS12_EPT_POINTER          120
#define VMCS12_GUEST_LINEAR_ADDRESS 416
#define VMCS12_HOST_CR4             600
#define VMCS12_HOST_RIP             672
#define VMCS12_PRIMARY_CONTROLS     748
#define VMCS12_EXIT_CONTROLS        768
#define VMCS12_ENTRY_INTR_INFO      788
#define VMCS12_SECONDARY_CONTROLS   804
#define VMCS12_INTERRUPTIBILITY     912
#define VMCS12_TIMER_VALUE          928
