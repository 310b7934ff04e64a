/* L2 of points.c: a pattern in every general register, a mark, a look, a hypercall, for ever. */
#include "nested/l1/marks.h"

#define REPLY_GOOD 0x600d
#define PATTERN(n) (0x11110000 + 0x101 * (n))

	.macro fill n, reg
	movq	$PATTERN(\n), %\reg
	.endm

	.macro look n, reg
	cmpq	$PATTERN(\n), %\reg
	movl	$\n, %eax
	jne	tell
	.endm

	.text
	.globl l2_point, l2_after_mark, l2_waited
l2_point:
	fill 1, rbx
	fill 2, rcx
	fill 3, rdx
	fill 4, rsi
	fill 5, rdi
	fill 6, rbp
	fill 7, r8
	fill 8, r9
	fill 9, r10
	fill 10, r11
	fill 11, r12
	fill 12, r13
	fill 13, r14
	fill 14, r15
	movq	$PATTERN(15), %rax
	movb	$MARK_L2, %al
	testb	$MARK_L2, l1_marks
	jz	1f
	outb	%al, $MARK_PORT
1:
l2_after_mark:
	cmpq	$0, l2_patience /* no timer: nothing to wait for */
	je	2f
1:	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	cmpq	l2_patience, %rax
	jb	1b
l2_waited:
	fill 3, rdx
	movq	$PATTERN(15), %rax
	movb	$MARK_L2, %al
2:
	cmpq	$((PATTERN(15) & ~0xff) | MARK_L2), %rax
	movl	$15, %eax
	jne	tell
	look 1, rbx
	look 2, rcx
	look 3, rdx
	look 4, rsi
	look 5, rdi
	look 6, rbp
	look 7, r8
	look 8, r9
	look 9, r10
	look 10, r11
	look 11, r12
	look 12, r13
	look 13, r14
	look 14, r15
	movl	$REPLY_GOOD, %eax
tell:
	leaq	l2_point(%rip), %rbx /* where to go on: see L2_ASK in cpu.h */
	testb	$1, l1_uses_vmcall
	jnz	1f
	vmmcall
1:	vmcall

	.section .note.GNU-stack, "", @progbits
