package cluster

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/cluster/transfer"
)

// endless gives as many zeros as are asked for.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	e.left -= n
	return int(n), nil
}

func (e *endless) Close() error { return nil }

// BenchmarkCopyBetweenAgents is the way of a copy without the backup at its beginning and the disk at its end: what it costs must be small beside them.
func BenchmarkCopyBetweenAgents(b *testing.B) {
	const size = 256 << 20
	b.SetBytes(size)
	for b.Loop() {
		box := transfer.NewOutbox(&endless{size}, transfer.OutboxConfig{Window: copyWindow, Patience: time.Minute})
		server := rpc.NewServer(rpc.ServerConfig{Self: func() rpc.Self { return rpc.Self{Cluster: "c", Node: "db2", Instance: "i2"} }, Log: slog.New(slog.DiscardHandler)})
		server.Handle("copy_take", func(ctx context.Context, _ string, body json.RawMessage) (any, error) {
			var in takeRequest
			if err := rpc.Decode(body, &in); err != nil {
				return nil, err
			}
			c, err := box.Take(ctx, in.Offset)
			return rpc.Blob{Head: takeHead{c.Offset, c.CRC, c.End}, Data: c.Data}, err
		})
		web := httptest.NewServer(server)
		client := rpc.NewClient(rpc.ClientConfig{Self: func() rpc.Self { return rpc.Self{Cluster: "c", Node: "db1", Instance: "i1"} }})
		peer := rpc.Peer{ID: "db2", Instance: "i2", Addr: web.Listener.Addr().String()}
		in := transfer.NewInbox(b.Context(), transfer.InboxConfig{Patience: time.Minute, Pause: time.Millisecond, Fetch: func(ctx context.Context, offset int64) (transfer.Chunk, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			var head takeHead
			data, err := client.CallBlob(ctx, peer, "copy_take", takeRequest{"s", offset}, &head)
			return transfer.Chunk{Offset: head.Offset, Data: data, CRC: head.CRC, End: head.End}, err
		}})
		if n, err := io.Copy(io.Discard, in); err != nil || n != size {
			b.Fatalf("%d bytes: %v", n, err)
		}
		client.Close()
		web.Close()
	}
}
