"""Godwit and QEMU side by side: the same guest, host and moment, measured in the same way."""
