/*
 * bool vmx_enter(struct l2_regs *regs, bool launched): run L2, whose VMCS is current, until its next
 * exit. False when the CPU refused the entry. Interrupts are off from before the entry until L2's
 * registers are safe; an interrupt that ended L2 is taken at sti.
 */
#include "nested/l1/marks.h"

#define VMCS_HOST_RSP 0x6c14

	.text
	.globl vmx_enter, vmx_exit
vmx_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	cli
	pushq	%rdi
	movl	$VMCS_HOST_RSP, %eax
	vmwrite	%rsp, %rax
	testb	$MARK_ENTRY, l1_marks
	jz	1f
	movb	$MARK_ENTRY, %al
	outb	%al, $MARK_PORT
1:
	testl	%esi, %esi
	movq	0(%rdi), %rbx
	movq	8(%rdi), %rcx
	movq	16(%rdi), %rdx
	movq	24(%rdi), %rsi
	movq	40(%rdi), %rbp
	movq	48(%rdi), %r8
	movq	56(%rdi), %r9
	movq	64(%rdi), %r10
	movq	72(%rdi), %r11
	movq	80(%rdi), %r12
	movq	88(%rdi), %r13
	movq	96(%rdi), %r14
	movq	104(%rdi), %r15
	movq	112(%rdi), %rax
	movq	32(%rdi), %rdi
	jnz	2f
	vmlaunch
	jmp	refused
2:	vmresume
refused:
	popq	%rdi
	xorl	%eax, %eax
	jmp	leave
vmx_exit:
	xchgq	%rdi, (%rsp) /* regs; L2's rdi is on the stack now */
	movq	%rbx, 0(%rdi)
	movq	%rcx, 8(%rdi)
	movq	%rdx, 16(%rdi)
	movq	%rsi, 24(%rdi)
	movq	%rbp, 40(%rdi)
	movq	%r8, 48(%rdi)
	movq	%r9, 56(%rdi)
	movq	%r10, 64(%rdi)
	movq	%r11, 72(%rdi)
	movq	%r12, 80(%rdi)
	movq	%r13, 88(%rdi)
	movq	%r14, 96(%rdi)
	movq	%r15, 104(%rdi)
	movq	%rax, 112(%rdi)
	popq	%rax
	movq	%rax, 32(%rdi)
	testb	$MARK_EXIT, l1_marks
	jz	1f
	movb	$MARK_EXIT, %al
	outb	%al, $MARK_PORT
1:
	movl	$1, %eax
leave:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	sti
	nop
	ret

	.section .note.GNU-stack, "", @progbits
