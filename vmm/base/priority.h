/*
 * Who goes first where processors are few. No state; of the thread that calls.
 */
#pragma once

/* What this thread has left to do can wait: guests, and whoever serves them, go first from here on,
 * at nice 10 a tenth of a processor that somebody else wants. For threads that are about to end: it
 * needs a privilege to be taken back (setpriority(2); on Linux it is per thread). */
void thread_step_back(void);
