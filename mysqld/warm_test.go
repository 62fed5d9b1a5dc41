package mysqld

import (
	"database/sql/driver"
	"testing"
)

// TestReadyConnectionsAreLive: a login made beforehand and killed meanwhile is
// never given to the pool, which would take it for new and not try again.
func TestReadyConnectionsAreLive(t *testing.T) { eachServer(t, testReadyConnectionsAreLive) }

func testReadyConnectionsAreLive(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	n.start(StartOptions{})
	ctx := testContext(t)
	c := &readyConnector{Connector: n.connector.Connector, ready: make(chan driver.Conn, 2)}
	n.must(c.prepare(ctx, 2))
	n.killUser(managerUser)
	conn, err := c.Connect(ctx)
	n.must(err)
	defer conn.Close()
	n.must(conn.(driver.Pinger).Ping(ctx))
	if len(c.ready) != 0 {
		t.Fatal("a killed connection is still offered")
	}
}
