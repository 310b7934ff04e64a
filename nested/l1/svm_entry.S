/*
 * svm_enter(uint64_t guest_vmcb, struct l2_regs *regs, uint64_t l1_vmcb): run L2 until its next #VMEXIT.
 *
 * The global interrupt flag is clear from before the entry until L2's registers are safe; VMRUN sets
 * it for L2 and the exit clears it. An interrupt that ended L2 is taken at STGI. VMLOAD and VMSAVE
 * switch what VMRUN does not: FS, GS, TR, LDTR and the system call MSRs.
 */
#include "nested/l1/marks.h"

	.text
	.globl svm_enter
svm_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rsi
	pushq	%rdx
	clgi
	sti /* for VMRUN: what L1's IF is then decides whether an interrupt ends L2 */
	testb	$MARK_ENTRY, l1_marks
	jz	1f
	movb	$MARK_ENTRY, %al
	outb	%al, $MARK_PORT
1:
	movq	%rdx, %rax
	vmsave
	movq	%rdi, %rax
	vmload
	movq	0(%rsi), %rbx
	movq	8(%rsi), %rcx
	movq	16(%rsi), %rdx
	movq	32(%rsi), %rdi
	movq	40(%rsi), %rbp
	movq	48(%rsi), %r8
	movq	56(%rsi), %r9
	movq	64(%rsi), %r10
	movq	72(%rsi), %r11
	movq	80(%rsi), %r12
	movq	88(%rsi), %r13
	movq	96(%rsi), %r14
	movq	104(%rsi), %r15
	movq	24(%rsi), %rsi
	vmrun
	vmsave /* rax is L1's again: the guest's VMCB */
	pushq	%rbx
	movq	16(%rsp), %rbx /* regs */
	movq	%rcx, 8(%rbx)
	movq	%rdx, 16(%rbx)
	movq	%rsi, 24(%rbx)
	movq	%rdi, 32(%rbx)
	movq	%rbp, 40(%rbx)
	movq	%r8, 48(%rbx)
	movq	%r9, 56(%rbx)
	movq	%r10, 64(%rbx)
	movq	%r11, 72(%rbx)
	movq	%r12, 80(%rbx)
	movq	%r13, 88(%rbx)
	movq	%r14, 96(%rbx)
	movq	%r15, 104(%rbx)
	popq	%rcx
	movq	%rcx, 0(%rbx)
	popq	%rax
	vmload
	popq	%rsi
	testb	$MARK_EXIT, l1_marks
	jz	1f
	movb	$MARK_EXIT, %al
	outb	%al, $MARK_PORT
1:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	stgi
	ret

	.section .note.GNU-stack, "", @progbits
