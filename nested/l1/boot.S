/*
 * From PVH's 32-bit entry to long mode in ring 0, and the two sets of trap entries: L1's and L2's.
 * Page tables are data: the first 4 GiB, identity mapped by 2 MiB pages with accessed and dirty set.
 * L2 runs on the same tables by a root of its own, so that its CR3 differs from L1's.
 */
#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_TSS 0x18

#define CR0_VALUE 0x80000033 /* PG NE ET MP PE */
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define PTE_FLAGS 0x67
#define PDE_2M_FLAGS 0xe7

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 8, 18 /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_entry

	.text
	.code32
	.globl pvh_entry
pvh_entry:
	lgdt	gdt_pointer
	movl	$boot_pml4, %eax
	movl	%eax, %cr3
	movl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$MSR_EFER, %ecx
	xorl	%edx, %edx
	movl	$EFER_LME, %eax
	wrmsr
	movl	$CR0_VALUE, %eax
	movl	%eax, %cr0
	ljmp	$SEL_CODE, $enter64

	.code64
enter64:
	movl	$SEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movl	$tss, %eax /* the descriptor's base is split: only code can fill it in */
	movw	%ax, gdt + SEL_TSS + 2
	shrl	$16, %eax
	movb	%al, gdt + SEL_TSS + 4
	movb	%ah, gdt + SEL_TSS + 7
	movl	$SEL_TSS, %eax
	ltr	%ax
	movb	$0xff, %al
	outb	%al, $0x21 /* the PIC stays silent: interrupts are the local APIC's */
	outb	%al, $0xa1
	movl	$l1_stack_top, %esp
	movl	%ebx, %edi /* hvm_start_info */
	call	l1_main
1:	cli
	hlt
	jmp	1b

/* Trap entries of 16 bytes each, so that C can compute the gates. */
	.macro trap_entries name, common
	.balign 16
	.globl \name
\name:
	vector = 0
	.rept 256
	.balign 16
	.if (vector != 8) && (vector != 17) && ((vector < 10) || (vector > 14))
	pushq	$0
	.endif
	pushq	$vector
	jmp	\common
	vector = vector + 1
	.endr
	.endm

	trap_entries l1_traps, l1_trap_common
	trap_entries l2_traps, l2_trap_common

	.macro save_and_call handler
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	leaq	72(%rsp), %rdi /* struct trap */
	cld
	call	\handler
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq
	.endm

	.globl l1_sleep, l1_sleep_hlt, l1_sleep_end
l1_sleep:
	sti
l1_sleep_hlt:
	hlt
l1_sleep_end:
	ret

l1_trap_common:
	save_and_call l1_trap
l2_trap_common:
	save_and_call l2_trap

	.data
	.balign 16
	.globl gdt
gdt:
	.quad	0
	.quad	0x00af9b000000ffff /* SEL_CODE */
	.quad	0x00cf93000000ffff /* SEL_DATA */
	.quad	0x0000890000000000 + tss_end - tss - 1, 0 /* SEL_TSS */
gdt_end:
	.balign 4
	.word	0
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt

	.balign 16
	.globl tss
tss:
	.fill	104, 1, 0
tss_end:

	.balign 4096
	.globl boot_pml4, boot_pdpt, l2_pml4
boot_pml4:
	.quad	boot_pdpt + PTE_FLAGS
	.fill	511, 8, 0
l2_pml4:
	.quad	boot_pdpt + PTE_FLAGS
	.fill	511, 8, 0
boot_pdpt:
	.quad	boot_pd + PTE_FLAGS
	.quad	boot_pd + 4096 + PTE_FLAGS
	.quad	boot_pd + 8192 + PTE_FLAGS
	.quad	boot_pd + 12288 + PTE_FLAGS
	.fill	508, 8, 0
boot_pd:
	index = 0
	.rept 2048
	.quad	(index << 21) + PDE_2M_FLAGS
	index = index + 1
	.endr

	.section .stacks, "aw", @nobits
	.balign 4096
	.skip	16384
l1_stack_top:

	.section .note.GNU-stack, "", @progbits
