/*
 * Ring 0 of the workload guest: as few instructions as possible (some KVMs emulate ring 0 one
 * instruction at a time, and know neither SSE nor every rare instruction there). Everything that
 * can be a constant is one: the page tables of the first 4 GiB are data in the image.
 *
 * pvh_entry (boot vCPU, 32-bit) and ap_trampoline (the others, real mode) both go straight to long
 * mode and leave by iretq to ring 3, which may use every I/O port. Ring 0 runs again only for an
 * exception (straight back to ring 3, to report it) and to halt for good.
 *
 * Ports are allowed twice, by the TSS bitmap and by IOPL: a paravirtual KVM (PVM) drops IOPL, and
 * QEMU's TCG (7.2) ignores the bitmap of a TSS that is marked busy, which it is after a migration
 * (helper_check_io takes descriptor type 9 only). Ring 3 runs with interrupts enabled because PVM
 * refuses an iretq with IF clear. Nothing interrupts all the same: the PIC is masked here, the
 * local APICs are never enabled.
 */
#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_UDATA 0x1b
#define SEL_UCODE64 0x23
#define SEL_TSS 0x28

#define CR0_VALUE 0x80000033 /* PG NE ET MP PE; caching enabled */
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS_RING3 0x3202 /* IOPL 3, IF */

#define PTE_FLAGS 0x67	  /* present, writable, user, accessed, dirty: never written again */
#define PDE_2M_FLAGS 0xe7 /* the same, page size 2 MiB */
#define PDE_UNCACHED 0x10

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
	ljmp	$SEL_CODE64, $boot_enter64

	.code64
boot_enter64:
	movl	$tss, %eax /* the descriptor's base is split: only code can fill it in */
	movw	%ax, gdt + SEL_TSS + 2
	shrl	$16, %eax
	movb	%al, gdt + SEL_TSS + 4
	movb	%ah, gdt + SEL_TSS + 7
	movb	$0xff, %al
	outb	%al, $0x21 /* before interrupts are enabled */
	outb	%al, $0xa1
	movl	%ebx, %edi /* hvm_start_info */
	movl	$boot_stack_top, %edx
	movl	$boot_main, %ecx

/* edi: argument, edx: ring 3 stack, ecx: ring 3 entry */
enter_ring3:
	movl	$ring0_stack_top, %esp
	lidt	idt_pointer
	movb	$0x89, gdt + SEL_TSS + 5 /* not busy: every vCPU loads the same TSS */
	movw	$SEL_TSS, %ax
	ltr	%ax
	pushq	$SEL_UDATA
	pushq	%rdx
	pushq	$RFLAGS_RING3
	pushq	$SEL_UCODE64
	pushq	%rcx
	iretq

ap_enter64:
	movl	ap_index, %edi
	movl	ap_stack, %edx
	movl	$ap_main, %ecx
	jmp	enter_ring3

/*
 * Exceptions, all fatal: note what happened and turn the frame into one that enters fault_main in
 * ring 3. Every stub takes 16 bytes, so that ring 3 can compute the gates.
 */
	.balign 16
	.globl fault_stubs
fault_stubs:
	vector = 0
	.rept 32
	.balign 16
	.if (vector != 8) && (vector != 17) && ((vector < 10) || (vector > 14))
	pushq	$0
	.endif
	pushq	$vector
	jmp	fault_common
	vector = vector + 1
	.endr

fault_common:
	cmpl	$0, halt_wanted /* PVM knows no int instruction: ud2 is the way in */
	jne	halt
	popq	fault_info
	popq	fault_info + 8
	movq	(%rsp), %rax
	movq	%rax, fault_info + 16
	movq	%cr2, %rax
	movq	%rax, fault_info + 24
	movq	$fault_main, (%rsp)
	movq	$SEL_UCODE64, 8(%rsp)
	movq	$RFLAGS_RING3, 16(%rsp)
	movq	$fault_stack_top, 24(%rsp)
	movq	$SEL_UDATA, 32(%rsp)
	iretq

/* This vCPU stops for good without burning its core. */
halt:
	cli
	hlt
	jmp	halt

	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	lgdtl	%cs:(ap_gdt_pointer - ap_trampoline)
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
	ljmpl	$SEL_CODE64, $ap_enter64
	.balign 4
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_trampoline_end:

	.data
	.balign 16
gdt:
	.quad	0
	.quad	0x00af9b000000ffff /* SEL_CODE64 */
	.quad	0x00cf93000000ffff /* SEL_DATA */
	.quad	0x00cff3000000ffff /* SEL_UDATA */
	.quad	0x00affb000000ffff /* SEL_UCODE64 */
	.quad	0x0000890000000000 + tss_end - tss - 1, 0 /* SEL_TSS */
gdt_end:
	.balign 4
	.word	0
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
	.balign 8
	.word	0, 0, 0
idt_pointer:
	.word	32 * 16 - 1
	.quad	idt

	.balign 16
tss:
	.long	0
	.quad	ring0_stack_top
	.fill	88, 1, 0
	.word	0, io_bitmap - tss
io_bitmap:
	.fill	8192, 1, 0 /* every port is allowed */
	.byte	0xff
tss_end:

	.globl ap_index, ap_stack, fault_info, halt_wanted
ap_index:
	.long	0
ap_stack:
	.long	0
halt_wanted:
	.long	0
	.balign 8
fault_info:
	.quad	0, 0, 0, 0 /* vector, error code, rip, cr2 */

/* Identity map of the first 4 GiB in 2 MiB pages; ring 3 adds what lies above. */
	.balign 4096
	.globl boot_pml4, boot_pdpt
boot_pml4:
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
	.rept 2039
	.quad	(index << 21) + PDE_2M_FLAGS
	index = index + 1
	.endr
	.rept 9 /* 0xfee00000, the local APIC, and up */
	.quad	(index << 21) + PDE_2M_FLAGS + PDE_UNCACHED
	index = index + 1
	.endr

/* Not cleared at start: stacks are in use by then. */
	.section .stacks, "aw", @nobits
	.balign 4096
	.skip	1024
ring0_stack_top:
	.skip	3072
fault_stack_top:
	.globl boot_stack_top
	.skip	16384
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
