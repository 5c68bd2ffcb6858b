package job

// rawStatus maps every word of Trigger.dev's API, the legacy ones that a server
// uses for clients without the version header, and the words of its database,
// which the realtime stream carries. The table of the public contract, section 4.
func rawStatus(raw string) (Status, bool) {
	switch raw {
	case "DELAYED", "PENDING_VERSION", "QUEUED", "PENDING", "DEQUEUED", "WAITING_FOR_DEPLOY":
		return Pending, true
	case "EXECUTING", "WAITING", "REATTEMPTING", "FROZEN",
		"RETRYING_AFTER_FAILURE", "WAITING_TO_RESUME", "PAUSED":
		return Executing, true
	case "COMPLETED", "COMPLETED_SUCCESSFULLY":
		return Completed, true
	case "CANCELED":
		return Canceled, true
	case "FAILED", "COMPLETED_WITH_ERRORS", "CRASHED", "TIMED_OUT", "SYSTEM_FAILURE", "INTERRUPTED", "EXPIRED":
		return Failed, true
	}
	return "", false
}

// StatusOf is the status that a word of Trigger.dev stands for, "" for a word that
// is not known.
func StatusOf(raw string) Status {
	s, _ := rawStatus(raw)
	return s
}

// KnownStatus tells whether raw is a word sidejob understands. A run whose status
// is not known stays open and is asked about again.
func KnownStatus(raw string) bool {
	_, known := rawStatus(raw)
	return known
}

// FinalStatus tells whether raw is an end state.
func FinalStatus(raw string) bool {
	s, known := rawStatus(raw)
	return known && s.Final()
}

// apiWord turns a word that only Trigger.dev's database uses into the API's, so
// that a row reads the same whichever channel brought the news.
func apiWord(raw string) string {
	switch raw {
	case "PENDING":
		return "QUEUED"
	case "RETRYING_AFTER_FAILURE":
		return "EXECUTING"
	case "WAITING_TO_RESUME", "PAUSED":
		return "WAITING"
	case "COMPLETED_SUCCESSFULLY":
		return "COMPLETED"
	case "COMPLETED_WITH_ERRORS":
		return "FAILED"
	}
	return raw
}

// rank orders statuses by how far a run has come.
func rank(s Status) int {
	switch {
	case s.Final():
		return 2
	case s == Executing:
		return 1
	}
	return 0
}
