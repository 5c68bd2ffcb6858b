.DEFAULT_GOAL := help
# The transpiled C of SQLite is not ours to race; without it the tests take a third.
LEAN := $(foreach m,sqlite/lib libc memory,-gcflags=modernc.org/$(m)=-race=false)
# Long tests, which only this tells, and those that do more without the race detector.
STORIES := TestAWeekOfTroubles TestAMonthOfRecurringJobs TestStoreOnAnAdoptedTable TestAdoptingLeaves \
	TestAHundredKills TestNoStatementReadsAMillionJobs TestThreeReplicas \
	TestEightWorkersShare TestWorkersThatDie
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help
help: ## Say what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.PHONY: run
run: ## Run sidejob for development: API, webhook, SQLite, emulator.
	go run . dev

.PHONY: test
test: ## Run all tests, shuffled and with the race detector.
	go test -race -shuffle=on -parallel=4 -timeout=14m $(LEAN) ./...

.PHONY: stories
stories: ## Run the long tests, such as the simulated week, on both engines.
	STORIES=true go test -count=1 -timeout=14m -parallel=4 -run='$(subst $(eval) ,|,$(STORIES))' .

.PHONY: lint
lint: ## Check format, vet and staticcheck.
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	$(STATICCHECK) ./...

.PHONY: build
build: ## Build the stripped, static binary into dist/.
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o dist/sidejob .

.PHONY: bench
bench: ## Measure the store and the emulator.
	go test -run='^$$' -bench=. -benchmem ./...

.PHONY: fuzz
fuzz: ## Fuzz what the internet can send, 20 s each.
	go test -run='^$$' -fuzz='^FuzzWebhookBody$$' -fuzztime=20s -fuzzminimizetime=1x .
	go test -run='^$$' -fuzz='^FuzzSignatureHeader$$' -fuzztime=20s -fuzzminimizetime=1x .

.PHONY: golden
golden: ## Write the golden files anew.
	go test -run='TransitionTable' ./internal/job -update
	go test -run='README' . -update
