package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message; a command with its whole environment fits. The kernel's default send buffer is
// only little larger.
const maxMessage = 200 << 10

// maxFiles is the kernel's own limit of descriptors in one message (SCM_MAX_FD).
const maxFiles = 253

// request asks the runner or a host for one thing. One connection carries one request; closing it cancels.
type request struct {
	Op      string   `json:"op"`
	Host    string   `json:"host,omitempty"`
	Verb    string   `json:"verb,omitempty"` // of a fault
	Args    []string `json:"args,omitempty"` // of a fault; argv of a command
	Env     []string `json:"env,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	Network string   `json:"network,omitempty"`
	Address string   `json:"address,omitempty"`
}

// reply answers a request; Error is empty on success. Descriptors may travel with it.
type reply struct {
	Error string      `json:"error,omitempty"`
	Usage bool        `json:"usage,omitempty"` // the error wraps ErrUsage
	Exit  int         `json:"exit,omitempty"`
	Hosts []hostState `json:"hosts,omitempty"`
}

// hostState is what the runner knows of one host. Descriptors of the processes that exist travel beside it, as
// pidfds in the order init, hbd, mysqld: only the kernel can tell the caller what it calls them.
type hostState struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Init   bool   `json:"init"`
	HBD    bool   `json:"hbd"`
	Mysqld bool   `json:"mysqld"`
}

func (r reply) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Usage:
		return mistake{errors.New(r.Error)}
	default:
		return errors.New(r.Error)
	}
}

func errorReply(err error) reply {
	if err == nil {
		return reply{}
	}
	return reply{Error: err.Error(), Usage: errors.Is(err, ErrUsage)}
}

// dialControl connects to the control socket at path. Message boundaries are kept (SOCK_SEQPACKET), so descriptors
// stay with their message.
func dialControl(path string) (*net.UnixConn, error) {
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
}

func listenControl(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return l, nil
}

// send writes one message with its descriptors, which stay open here.
func send(c *net.UnixConn, message any, fds ...int) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	if len(data) > maxMessage {
		return fmt.Errorf("message of %d bytes is larger than %d (is the environment huge?)", len(data), maxMessage)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(data, oob, nil); err != nil {
		return fmt.Errorf("sending a message: %w", err)
	}
	return nil
}

// receive reads one message and the descriptors that came with it, which the caller closes. It returns io.EOF when
// the other side has closed.
func receive(c *net.UnixConn, message any) ([]*os.File, error) {
	data := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := receivedFiles(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("message was cut off after %d bytes", n)
	}
	if err == nil {
		err = json.Unmarshal(data[:n], message)
	}
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("receiving a message: %w", err)
	}
	return files, nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parsing a control message: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("parsing received descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // only descriptors to give back: nothing was written through them here
	}
}

// handler answers one request. It owns files; the answer's descriptors are closed by the server after sending.
type handler func(ctx context.Context, req request, files []*os.File) (reply, []*os.File)

// serve answers requests on l until l is closed. A request's context ends when its client goes away.
func serve(ctx context.Context, l *net.UnixListener, log *slog.Logger, handle handler) error {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting a control connection: %w", err)
		}
		go serveOne(ctx, c, log, handle)
	}
}

func serveOne(ctx context.Context, c *net.UnixConn, log *slog.Logger, handle handler) {
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var req request
	files, err := receive(c, &req)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			log.Warn("unreadable request", "error", err)
		}
		return
	}
	go func() { // the client sends nothing more: a read returns when it has gone
		defer cancel()
		var one [1]byte
		_, _ = c.Read(one[:]) // any outcome means the same
	}()
	rep, out := handle(ctx, req, files)
	defer closeAll(out)
	fds := make([]int, len(out))
	for i, f := range out {
		fds[i] = int(f.Fd())
	}
	if err := send(c, rep, fds...); err != nil && ctx.Err() == nil {
		log.Warn("answer not delivered", "op", req.Op, "error", err)
	}
}

// call sends one request to the socket at path and waits for the answer or the end of ctx.
func call(ctx context.Context, path string, req request, fds ...int) (reply, []*os.File, error) {
	var rep reply
	c, err := dialControl(path)
	if err != nil {
		return rep, nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := send(c, req, fds...); err != nil {
		return rep, nil, err
	}
	files, err := receive(c, &rep)
	if ctx.Err() != nil {
		closeAll(files)
		return rep, nil, context.Cause(ctx)
	}
	if err != nil {
		return rep, nil, err
	}
	if err := rep.err(); err != nil {
		closeAll(files)
		return rep, nil, err
	}
	return rep, files, nil
}
