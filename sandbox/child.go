package sandbox

import (
	"log/slog"
	"os"
)

// childVerb is how a program of ours is told to be a part of a sandbox: PROGRAM sandbox _run KIND ...
const childVerb = "_run"

// Kinds of children.
const (
	kindRunner = "runner" // runner DIR [tied]
	kindHost   = "host"   // host DIR NAME
)

// runsChildren is set once RunIfChild was called: this program can be started again as a child.
var runsChildren bool

// RunIfChild turns the process into a part of a sandbox if it was started as one, and then does not return.
// A program that calls Up, or a test's TestMain, calls it before anything else; a program that does not needs hbctl.
func RunIfChild() {
	if len(os.Args) > 3 && os.Args[1] == "sandbox" && os.Args[2] == childVerb {
		os.Exit(RunChild(os.Args[3:]))
	}
	runsChildren = true
}

// RunChild is the part of a sandbox that args, KIND and what follows it, names; it returns the exit status. Only Up and
// the runner start it, with the descriptors it needs.
func RunChild(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	switch {
	case len(args) >= 2 && args[0] == kindRunner:
		err = runRunner(args[1], len(args) > 2, log)
	case len(args) == 3 && args[0] == kindHost:
		err = runHost(args[1], args[2], log.With("node", args[2]))
	default:
		err = usagef("%s is started by the sandbox itself", childVerb)
	}
	if err != nil {
		log.Error("sandbox process failed", "args", args, "error", err)
		return 1
	}
	return 0
}
