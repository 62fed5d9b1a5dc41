package cluster

import (
	"testing"
)

func TestBootstrapMakesEverybodyCount(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.nothingLost()
}
