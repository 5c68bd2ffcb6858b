package emulator

// status is the word the server's database has for a run's state. The words that
// the API shows differ, and depend on a request header.
type status string

const (
	delayed        status = "DELAYED"
	pending        status = "PENDING"
	pendingVersion status = "PENDING_VERSION"
	dequeued       status = "DEQUEUED"
	executing      status = "EXECUTING"
	waiting        status = "WAITING_TO_RESUME"
	completed      status = "COMPLETED_SUCCESSFULLY"
	canceled       status = "CANCELED"
	failed         status = "COMPLETED_WITH_ERRORS"
	crashed        status = "CRASHED"
	systemFailure  status = "SYSTEM_FAILURE"
	expired        status = "EXPIRED"
	timedOut       status = "TIMED_OUT"
)

// apiVersion is the one value of x-trigger-api-version that gets today's words;
// any other, older or newer, gets the legacy ones.
const apiVersion = "2025-07-16"

// meaning is what a status shows to the outside.
type meaning struct {
	api, legacy string
	final       bool
	freesKey    bool // a run in this state gives up its idempotency key
	flags       flags
}

// flags are the booleans of the REST bodies. EXPIRED and TIMED_OUT have none set.
type flags struct {
	IsQueued    bool `json:"isQueued"`
	IsExecuting bool `json:"isExecuting"`
	IsCompleted bool `json:"isCompleted"`
	IsFailed    bool `json:"isFailed"`
	IsSuccess   bool `json:"isSuccess"`
	IsCancelled bool `json:"isCancelled"`
	IsWaiting   bool `json:"isWaiting"`
}

func (s status) meaning() meaning {
	queued, running := flags{IsQueued: true}, flags{IsExecuting: true}
	lost := flags{IsCompleted: true, IsFailed: true}
	switch s {
	case delayed:
		return meaning{api: "DELAYED", legacy: "DELAYED", flags: queued}
	case pending:
		return meaning{api: "QUEUED", legacy: "QUEUED", flags: queued}
	case pendingVersion:
		return meaning{api: "PENDING_VERSION", legacy: "PENDING_VERSION", flags: queued}
	case dequeued:
		return meaning{api: "DEQUEUED", legacy: "EXECUTING", flags: running}
	case executing:
		return meaning{api: "EXECUTING", legacy: "EXECUTING", flags: running}
	case waiting:
		return meaning{api: "WAITING", legacy: "FROZEN", flags: flags{IsWaiting: true}}
	case completed:
		return meaning{api: "COMPLETED", legacy: "COMPLETED", final: true, flags: flags{IsCompleted: true, IsSuccess: true}}
	case canceled:
		return meaning{api: "CANCELED", legacy: "CANCELED", final: true,
			flags: flags{IsCompleted: true, IsFailed: true, IsCancelled: true}}
	case failed:
		return meaning{api: "FAILED", legacy: "FAILED", final: true, freesKey: true, flags: lost}
	case crashed, systemFailure:
		return meaning{api: string(s), legacy: string(s), final: true, freesKey: true, flags: lost}
	case expired, timedOut:
		return meaning{api: string(s), legacy: string(s), final: true, freesKey: true}
	}
	return meaning{api: string(s), legacy: string(s)}
}

func (s status) final() bool { return s.meaning().final }

// show gives the word and the booleans for a request's version header.
func (s status) show(version string) (string, flags) {
	m := s.meaning()
	if version == apiVersion {
		return m.api, m.flags
	}
	if s == waiting {
		return m.legacy, flags{IsExecuting: true}
	}
	return m.legacy, m.flags
}

// namedStatuses are the states a list filter's word stands for: today's and the
// legacy words are taken, whatever the version header. Nil: no such word.
func namedStatuses(word string) []status {
	switch word {
	case "QUEUED":
		return []status{pending}
	case "WAITING", "FROZEN":
		return []status{waiting}
	case "COMPLETED":
		return []status{completed}
	case "FAILED":
		return []status{failed}
	case "REATTEMPTING", "INTERRUPTED", "WAITING_FOR_DEPLOY":
		return []status{status(word)}
	case "DELAYED", "PENDING_VERSION", "DEQUEUED", "EXECUTING", "CANCELED", "CRASHED",
		"SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT":
		return []status{status(word)}
	}
	return nil
}
