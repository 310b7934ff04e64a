#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/vcpu_exit.h"

/* A call the controller wants made on the vCPU's thread. */
struct vcpu_job {
	enum {
		JOB_NONE,
		JOB_ASKED,
		JOB_DONE
	} state;
	vcpu_fn fn;
	void *arg;
	int ret;
	struct err e;
};

struct vcpu {
	/* immutable after new */
	struct vcpu_config config;
	int fd;
	struct kvm_run *run; /* shared with KVM */
	size_t run_bytes;
	pthread_t thread;
	bool has_thread;
	pid_t tid;

	/* owned by the vCPU's thread */
	bool ran; /* has entered the guest since it was last paused */

	/* any thread */
	atomic_bool want_pause;
	_Atomic uint64_t nr_exits;
	_Atomic uint64_t rest_until_ns; /* changed with lock held */

	pthread_mutex_t lock;
	/* guarded by lock */
	pthread_cond_t to_vcpu;
	pthread_cond_t to_controller;
	bool paused;
	bool quit;
	struct vcpu_job job;
};

static int kick_signal(void)
{
	return SIGRTMIN;
}

static void on_kick(int sig)
{
	(void)sig; /* its only use is to make KVM_RUN return EINTR */
}

/* A process-wide setting, so every VM installs the same handler: repeating it changes nothing. */
static int install_kick_handler(struct err *e)
{
	struct sigaction sa = {.sa_handler = on_kick}; /* no SA_RESTART: KVM_RUN must return */

	sigemptyset(&sa.sa_mask);
	if (sigaction(kick_signal(), &sa, NULL) < 0)
		return err_sys(e, "cannot install the vCPU signal handler");
	return 0;
}

static void set_immediate_exit(struct vcpu *v, uint8_t on)
{
	__atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

static void stop(struct vcpu *v, enum vcpu_stop why, const char *text)
{
	vcpu_park_self(v);
	v->config.on_stop(v->config.ctx, v->config.id, why, text);
}

static void handle_exit(struct vcpu *v)
{
	char text[VCPU_EXIT_TEXT_BYTES];

	atomic_fetch_add_explicit(&v->nr_exits, 1, memory_order_relaxed);
	switch (vcpu_exit_dispatch(v->run, v->config.bus, v->fd, text)) {
	case VCPU_EXIT_DONE:
		return;
	case VCPU_EXIT_SHUTDOWN:
		stop(v, VCPU_STOP_SHUTDOWN, text);
		return;
	case VCPU_EXIT_UNHANDLED:
		if (!v->config.on_exit || !v->config.on_exit(v->config.ctx, v->config.id, v->run))
			stop(v, VCPU_STOP_ERROR, text);
		return;
	}
}

/* One KVM_RUN and what came of it. Returns false when it was interrupted. */
static bool run_once(struct vcpu *v)
{
	char text[VCPU_EXIT_TEXT_BYTES];

	if (ioctl(v->fd, KVM_RUN, 0) == 0) {
		handle_exit(v);
		return true;
	}
	if (errno == EINTR)
		return false;
	/* EAGAIN: an AP got its SIPI while it waited inside KVM_RUN, which wants to be called
	 * again (kvm_arch_vcpu_ioctl_run). */
	if (errno == EAGAIN)
		return true;
	vcpu_exit_describe_errno(errno, v->fd, text);
	stop(v, VCPU_STOP_ERROR, text);
	return false;
}

/*
 * Registers are only whole once KVM has seen the result of the last PIO or MMIO exit, which is on
 * the next KVM_RUN. With immediate_exit it does that and returns EINTR before any guest
 * instruction; an access that KVM splits (MMIO across a page) may take several rounds.
 */
static void complete_pending_io(struct vcpu *v)
{
	if (!v->ran)
		return;
	set_immediate_exit(v, 1);
	while (run_once(v))
		;
	v->ran = false;
}

/* With the lock held, which is let go meanwhile: where processors are few, whoever is woken runs at
 * once, and would only find it taken. */
static void tell_controller(struct vcpu *v)
{
	pthread_mutex_unlock(&v->lock);
	pthread_cond_broadcast(&v->to_controller);
	pthread_mutex_lock(&v->lock);
}

static void do_job(struct vcpu *v)
{
	struct vcpu_job *job = &v->job;

	/* The caller waits for JOB_DONE and touches nothing meanwhile. */
	pthread_mutex_unlock(&v->lock);
	job->ret = job->fn(v->fd, job->arg, &job->e);
	pthread_mutex_lock(&v->lock);
	job->state = JOB_DONE;
	tell_controller(v);
}

/* Stay paused until resumed. Returns false when the thread must end. */
static bool park(struct vcpu *v)
{
	bool quit;

	complete_pending_io(v);
	pthread_mutex_lock(&v->lock);
	v->paused = true;
	tell_controller(v);
	while (!v->quit && (atomic_load(&v->want_pause) || v->job.state == JOB_ASKED)) {
		if (v->job.state == JOB_ASKED)
			do_job(v);
		else
			pthread_cond_wait(&v->to_vcpu, &v->lock);
	}
	v->paused = false;
	/* Under the lock: a pause asked for from here on sets it again after this. */
	set_immediate_exit(v, 0);
	quit = v->quit;
	pthread_mutex_unlock(&v->lock);
	return !quit;
}

/* Tell a guest that uses kvmclock that it was stopped, so that its watchdogs do not take the pause
 * for a lockup (KVM API document, 4.70). EINVAL: it does not use kvmclock. */
static void announce_pause(struct vcpu *v)
{
	ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
}

/* A pause that was taken back before the thread got to it leaves immediate_exit set, and KVM_RUN
 * would return for ever. */
static void forget_old_kick(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	if (!atomic_load(&v->want_pause))
		set_immediate_exit(v, 0);
	pthread_mutex_unlock(&v->lock);
}

/* In the middle of nothing: KVM_RUN has just been interrupted, so no access is half done. */
static void rest(struct vcpu *v)
{
	uint64_t until_ns;

	pthread_mutex_lock(&v->lock);
	while (!atomic_load(&v->want_pause) &&
	       (until_ns = atomic_load(&v->rest_until_ns)) > clock_now_ns()) {
		struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S),
					 .tv_nsec = (long)(until_ns % NS_PER_S)};

		pthread_cond_timedwait(&v->to_vcpu, &v->lock, &until);
	}
	pthread_mutex_unlock(&v->lock);
}

/* KVM_RUN was interrupted: by a pause, which the loop sees, by a wish to rest, or for nothing. */
static void answer_kick(struct vcpu *v)
{
	forget_old_kick(v);
	if (atomic_load(&v->rest_until_ns))
		rest(v);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, kick_signal());
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	v->tid = (pid_t)syscall(SYS_gettid);
	while (park(v)) {
		announce_pause(v);
		v->ran = true;
		while (!atomic_load(&v->want_pause))
			if (!run_once(v))
				answer_kick(v);
	}
	return NULL;
}

static int start_thread(struct vcpu *v, struct err *e)
{
	char name[16];
	int code = pthread_create(&v->thread, NULL, vcpu_main, v);

	if (code)
		return err_set(e, ERR_SYS, code, "cannot start the thread of vCPU %u: %s",
			       v->config.id, strerrordesc_np(code));
	v->has_thread = true;
	snprintf(name, sizeof(name), "vcpu%u", v->config.id % 1000);
	pthread_setname_np(v->thread, name);
	vcpu_wait_paused(v);
	return 0;
}

int vcpu_create(int vm_fd, uint32_t id, int *fd, struct err *e)
{
	*fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	return *fd < 0 ? err_sys(e, "cannot create vCPU %u", id) : 0;
}

static int map_run_area(struct vcpu *v, struct err *e)
{
	int bytes = ioctl(v->config.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	if (bytes < (int)sizeof(struct kvm_run))
		return err_sys(e, "KVM_GET_VCPU_MMAP_SIZE says %d", bytes);
	v->run_bytes = (size_t)bytes;
	run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(e, "cannot map the run area of vCPU %u", v->config.id);
	v->run = run;
	return 0;
}

static void init_monotonic(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

int vcpu_new(const struct vcpu_config *config, struct vcpu **out, struct err *e)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	int ret;

	if (!v) {
		close(config->fd);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for vCPU %u", config->id);
	}
	v->config = *config;
	v->fd = config->fd;
	atomic_init(&v->want_pause, true);
	pthread_mutex_init(&v->lock, NULL);
	init_monotonic(&v->to_vcpu);
	pthread_cond_init(&v->to_controller, NULL);
	ret = install_kick_handler(e);
	if (ret == 0)
		ret = map_run_area(v, e);
	if (ret == 0)
		ret = start_thread(v, e);
	if (ret < 0) {
		vcpu_free(v);
		return ret;
	}
	*out = v;
	return 0;
}

static void end_thread(struct vcpu *v)
{
	vcpu_request_pause(v);
	vcpu_wait_paused(v);
	pthread_mutex_lock(&v->lock);
	v->quit = true;
	pthread_mutex_unlock(&v->lock);
	pthread_cond_signal(&v->to_vcpu);
	pthread_join(v->thread, NULL);
}

void vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->has_thread)
		end_thread(v);
	if (v->run)
		munmap(v->run, v->run_bytes);
	close(v->fd);
	pthread_cond_destroy(&v->to_controller);
	pthread_cond_destroy(&v->to_vcpu);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

void vcpu_request_pause(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	atomic_store(&v->want_pause, true);
	if (!v->paused) {
		/* The flag first: a signal that arrives before KVM_RUN is lost, the flag is not. */
		set_immediate_exit(v, 1);
		pthread_kill(v->thread, kick_signal());
		pthread_cond_signal(&v->to_vcpu); /* it may rest */
	}
	pthread_mutex_unlock(&v->lock);
}

void vcpu_rest_until(struct vcpu *v, uint64_t deadline_ns)
{
	pthread_mutex_lock(&v->lock);
	atomic_store(&v->rest_until_ns, deadline_ns);
	if (deadline_ns && !v->paused) {
		set_immediate_exit(v, 1);
		pthread_kill(v->thread, kick_signal());
	}
	pthread_cond_signal(&v->to_vcpu);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_wait_paused(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	while (!v->paused)
		pthread_cond_wait(&v->to_controller, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_resume(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	atomic_store(&v->want_pause, false);
	pthread_mutex_unlock(&v->lock);
	pthread_cond_signal(&v->to_vcpu);
}

void vcpu_park_self(struct vcpu *v)
{
	atomic_store(&v->want_pause, true);
	set_immediate_exit(v, 1);
}

void vcpu_call_start(struct vcpu *v, vcpu_fn fn, void *arg)
{
	pthread_mutex_lock(&v->lock);
	v->job = (struct vcpu_job){.state = JOB_ASKED, .fn = fn, .arg = arg};
	pthread_mutex_unlock(&v->lock);
	pthread_cond_signal(&v->to_vcpu);
}

int vcpu_call_finish(struct vcpu *v, struct err *e)
{
	int ret;

	pthread_mutex_lock(&v->lock);
	while (v->job.state == JOB_ASKED)
		pthread_cond_wait(&v->to_controller, &v->lock);
	ret = v->job.ret;
	if (ret < 0) {
		*e = v->job.e;
		err_prefix(e, "vCPU %u", v->config.id);
	}
	v->job.state = JOB_NONE;
	pthread_mutex_unlock(&v->lock);
	return ret;
}

int vcpu_call(struct vcpu *v, vcpu_fn fn, void *arg, struct err *e)
{
	vcpu_call_start(v, fn, arg);
	return vcpu_call_finish(v, e);
}

uint64_t vcpu_cpu_time_ns(const struct vcpu *v)
{
	struct timespec ts = {0};
	clockid_t clock;

	if (pthread_getcpuclockid(v->thread, &clock) == 0)
		clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

pid_t vcpu_tid(const struct vcpu *v)
{
	return v->tid;
}

uint64_t vcpu_nr_exits(const struct vcpu *v)
{
	return atomic_load_explicit(&v->nr_exits, memory_order_relaxed);
}
