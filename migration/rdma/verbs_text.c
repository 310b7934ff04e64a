/* What completions and connection events mean, in plain words. */
#include "migration/rdma/verbs.h"

const char *verbs_status_text(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return "no failure";
	case IBV_WC_RETRY_EXC_ERR:
		return "the other adapter stopped answering: link cut, host down or device gone";
	case IBV_WC_RNR_RETRY_EXC_ERR:
		return "the other side takes no more messages";
	case IBV_WC_REM_ACCESS_ERR:
		return "the other adapter refused the write: that memory is not open to us there";
	case IBV_WC_REM_OP_ERR:
		return "the other adapter could not carry out the write";
	case IBV_WC_REM_INV_REQ_ERR:
		return "the other adapter took the write for malformed";
	case IBV_WC_LOC_PROT_ERR:
		return "this adapter may not read the guest's memory: it is not pinned";
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_QP_OP_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return "this adapter refused the work it was given";
	case IBV_WC_WR_FLUSH_ERR:
		return "the RDMA connection was closed with writes still on their way";
	case IBV_WC_FATAL_ERR:
	case IBV_WC_GENERAL_ERR:
		return "the RDMA device failed";
	default:
		return ibv_wc_status_str(status);
	}
}

const char *verbs_cm_event_text(enum rdma_cm_event_type event)
{
	switch (event) {
	case RDMA_CM_EVENT_ADDR_ERROR:
		return "no RDMA device leads to that address";
	case RDMA_CM_EVENT_ROUTE_ERROR:
		return "the RDMA network knows no route to that address";
	case RDMA_CM_EVENT_UNREACHABLE:
		return "the host there does not answer by RDMA";
	case RDMA_CM_EVENT_REJECTED:
		return "the host there takes no RDMA connection on that port";
	case RDMA_CM_EVENT_CONNECT_ERROR:
		return "the RDMA connection could not be set up";
	case RDMA_CM_EVENT_DISCONNECTED:
		return "the other side closed the RDMA connection";
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return "the RDMA device was removed from this host";
	case RDMA_CM_EVENT_ADDR_CHANGE:
		return "the network address of the RDMA device changed";
	default:
		return rdma_event_str(event);
	}
}
