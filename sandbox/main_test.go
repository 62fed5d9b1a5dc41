package sandbox_test

import (
	"os"
	"testing"

	"github.com/highbase/highbase/sandbox"
)

// TestMain lets the test binary be the runner and the hosts of the sandboxes that tests build, and a stand-in for hbd.
func TestMain(m *testing.M) {
	sandbox.RunIfChild()
	if len(os.Args) == 3 && os.Args[1] == "-config" {
		os.Exit(standIn(os.Args[2]))
	}
	os.Exit(m.Run())
}
