#include "migration/report.h"

const char *migration_status_name(enum migration_status status)
{
	switch (status) {
	case MIGRATION_NONE:
		return "none";
	case MIGRATION_SETUP:
		return "setup";
	case MIGRATION_ACTIVE:
		return "active";
	case MIGRATION_DEVICE:
		return "device";
	case MIGRATION_COMPLETED:
		return "completed";
	case MIGRATION_CANCELLED:
		return "cancelled";
	case MIGRATION_FAILED:
	case MIGRATION_UNKNOWN:
		break;
	}
	return "failed";
}

const char *migration_phase_name(enum migration_phase phase)
{
	static const char *const names[NR_PHASES] = {
		[PHASE_NEGOTIATE] = "negotiate", [PHASE_DESCRIBE] = "describe",
		[PHASE_TRACK] = "track",         [PHASE_DISKS] = "disks",
		[PHASE_PRECOPY] = "precopy",     [PHASE_PAUSE] = "pause",
		[PHASE_CAPTURE] = "capture",     [PHASE_FINAL_RAM] = "final-ram",
		[PHASE_OFFER] = "offer",         [PHASE_STATE] = "state",
		[PHASE_VERIFY] = "verify",       [PHASE_READY] = "ready",
		[PHASE_COMMIT] = "commit",
	};

	return phase < NR_PHASES ? names[phase] : "unknown";
}
