/*
 * From Multiboot's 32-bit flat mode to main(), the start of the other CPUs, and interrupt entry.
 * Interrupt handlers get the vector; whoever shares code between CPUs locks for itself.
 */
#define MAGIC 0x1badb002

	.section .multiboot, "a"
	.align 4
	.long MAGIC, 0, -MAGIC

	.text
	.code32
	.globl start
start:
	lgdt gdt_pointer
	ljmp $8, $1f
1:	mov $16, %ecx
	mov %ecx, %ds
	mov %ecx, %es
	mov %ecx, %fs
	mov %ecx, %gs
	mov %ecx, %ss
	mov $stack_top, %esp
	push %ebx
	push %eax
	call main
2:	hlt
	jmp 2b

/* A copy of what lies between these two goes to where the start-up IPI sends the other CPUs. */
	.globl ap_start, ap_end
	.code16
ap_start:
	cli
	lgdtl %cs:ap_gdt_pointer - ap_start
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $8, $ap_flat
	.align 4
ap_gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt
ap_end:

/* What the machine wakes up to, at 0x1000: exit status 3. */
	.globl wake_start, wake_end
	.code16
wake_start:
	mov $3, %eax
	mov $0xf4, %dx
	out %eax, %dx
1:	hlt
	jmp 1b
wake_end:

/* One stack serves all of them: they count themselves with one instruction and sleep. */
	.code32
ap_flat:
	mov $16, %eax
	mov %eax, %ds
	lock incl nr_aps
1:	cli
	hlt
	jmp 1b

	.globl interrupt_entries
interrupt_entries:
	.set vector, 0
	.rept 256
	.align 16
	push $vector
	jmp interrupt_common
	.set vector, vector + 1
	.endr

/* None of the vectors used here comes with an error code; exceptions end the run. */
interrupt_common:
	pusha
	mov 32(%esp), %eax
	push %eax
	call on_interrupt
	add $4, %esp
	popa
	add $4, %esp
	iret

	.data
	.align 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt

	.bss
	.align 16
	.skip 8192
stack_top:
