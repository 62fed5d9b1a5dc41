package sandbox_test

import (
	"os"
	"testing"

	"github.com/highbase/highbase/sandbox"
)

// TestMain lets the test binary be the runner and the hosts of the sandboxes that tests build.
func TestMain(m *testing.M) {
	sandbox.RunIfChild()
	os.Exit(m.Run())
}
