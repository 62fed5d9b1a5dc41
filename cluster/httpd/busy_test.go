package httpd

import (
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

func TestWaitAndKillAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		req api.SwitchoverRequest
		ok  bool
	}{
		{api.SwitchoverRequest{To: "db2"}, true},
		{api.SwitchoverRequest{To: "db2", WaitSeconds: 0.5}, true},
		{api.SwitchoverRequest{To: "db2", Kill: true, IfPlan: "3-abc"}, true},
		{api.SwitchoverRequest{To: "db2", WaitSeconds: -1}, false},
		{api.SwitchoverRequest{To: "db2", WaitSeconds: 1e9}, false},
		{api.SwitchoverRequest{To: "db2", WaitSeconds: 1, Kill: true}, false},
		{api.SwitchoverRequest{To: "db2", IfPlan: "a\nb"}, false},
	} {
		if err := validPromote(&c.req, "test"); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
}
