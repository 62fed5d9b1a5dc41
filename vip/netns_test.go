package vip

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	insideEnv = "HIGHBASE_VIP_TEST_INSIDE" // set in the process that runs within its own namespace
	waitLimit = 10 * time.Second           // how long a condition may take on a busy machine
	testPort  = 3306
)

var (
	vip4 = netip.MustParseAddr("10.77.0.100")
	vip6 = netip.MustParseAddr("fd77::100")
)

// isolated runs the calling test in a process with a network namespace of its own, which ends with it. It
// returns true in that process; in the outer one the test is over and the caller returns.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("skipping, not root: cannot make a network namespace")
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig goes by thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("skipping, cannot make a network namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("skipping:\n%s", out)
	}
	t.Logf("%s", out)
	return false
}

// host is a machine of the test network: a namespace with an interface eth0 on a common bridge.
type host struct {
	t  *testing.T
	ns netns.NsHandle
	h  *netlink.Handle
}

// network is a bridge in a namespace of its own and the hosts on it. The first host is the test process.
type network struct {
	t      *testing.T
	bridge *host
	self   *host
	count  int
}

func check(t testing.TB, err error, what string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	ns, err := netns.Get()
	check(t, err, "getting own namespace")
	n := &network{t: t, self: newHostIn(t, ns)}
	n.bridge = newHostIn(t, newNamespace(t))
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	check(t, n.bridge.h.LinkAdd(br), "adding bridge")
	check(t, n.bridge.h.LinkSetUp(br), "raising bridge")
	n.attach(n.self, 1)
	return n
}

// newNamespace makes a namespace without entering it.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	check(t, err, "getting own namespace")
	ns, err := netns.New()
	check(t, err, "making a namespace")
	check(t, netns.Set(old), "returning to own namespace")
	check(t, old.Close(), "closing namespace handle")
	t.Cleanup(func() { check(t, ns.Close(), "closing namespace") })
	return ns
}

func newHostIn(t *testing.T, ns netns.NsHandle) *host {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	check(t, err, "opening netlink in namespace")
	t.Cleanup(h.Close)
	lo, err := h.LinkByName("lo")
	check(t, err, "finding lo")
	check(t, h.LinkSetUp(lo), "raising lo")
	return &host{t: t, ns: ns, h: h}
}

// add makes a host with the addresses 10.77.0.N and fd77::N.
func (n *network) add(number int) *host {
	n.t.Helper()
	h := newHostIn(n.t, newNamespace(n.t))
	n.attach(h, number)
	return h
}

func (n *network) attach(h *host, number int) {
	n.t.Helper()
	n.count++
	port := fmt.Sprintf("port%d", n.count)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}
	check(n.t, n.bridge.h.LinkAdd(veth), "adding veth")
	br, err := n.bridge.h.LinkByName("br0")
	check(n.t, err, "finding bridge")
	check(n.t, n.bridge.h.LinkSetMaster(veth, br), "joining bridge")
	check(n.t, n.bridge.h.LinkSetUp(veth), "raising bridge port")
	check(n.t, h.h.LinkSetUp(h.eth0()), "raising eth0")
	h.addAddr(fmt.Sprintf("10.77.0.%d/24", number))
	h.addAddr(fmt.Sprintf("fd77::%d/64", number))
}

func (h *host) eth0() netlink.Link {
	h.t.Helper()
	l, err := h.h.LinkByName("eth0")
	check(h.t, err, "finding eth0")
	return l
}

func (h *host) mac() net.HardwareAddr { return h.eth0().Attrs().HardwareAddr }

func (h *host) addAddr(cidr string) {
	h.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	check(h.t, err, "parsing address")
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	check(h.t, h.h.AddrReplace(h.eth0(), a), "adding address")
}

// do runs f on a thread within the host's namespace. Sockets made in f stay there.
func (h *host) do(f func()) {
	h.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	check(h.t, err, "getting own namespace")
	defer func() {
		check(h.t, netns.Set(old), "returning to own namespace")
		check(h.t, old.Close(), "closing namespace handle")
	}()
	check(h.t, netns.Set(h.ns), "entering namespace")
	f()
}

// serve answers every connection on the database port with name and then echoes.
func (h *host) serve(name string, port int) {
	h.t.Helper()
	var l net.Listener
	h.do(func() {
		var err error
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		check(h.t, err, "listening")
	})
	h.t.Cleanup(func() { check(h.t, l.Close(), "closing listener") })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c, name)
		}
	}()
}

func echo(c net.Conn, name string) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 64)
	for msg := []byte(name); ; {
		if _, err := c.Write(msg); err != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		msg = buf[:n]
	}
}

// dial connects from the host and returns the connection and the server's name.
func (h *host) dial(ip netip.Addr, timeout time.Duration) (net.Conn, string, error) {
	h.t.Helper()
	var c net.Conn
	var err error
	h.do(func() {
		d := net.Dialer{Timeout: timeout}
		c, err = d.Dial("tcp", netip.AddrPortFrom(ip, testPort).String())
	})
	if err != nil {
		return nil, "", err
	}
	h.t.Cleanup(func() { _ = c.Close() })
	name, err := h.read(c, timeout)
	return c, name, err
}

func (h *host) read(c net.Conn, timeout time.Duration) (string, error) {
	check(h.t, c.SetReadDeadline(time.Now().Add(timeout)), "setting deadline")
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// mustReach fails unless the host reaches the named server.
func (h *host) mustReach(ip netip.Addr, name string) net.Conn {
	h.t.Helper()
	c, got, err := h.dial(ip, waitLimit)
	if err != nil || got != name {
		h.t.Fatalf("connecting to %s: reached %q, %v; want %q", ip, got, err, name)
	}
	return c
}

// mustBeRefused fails unless a connection is answered by a reset.
func (h *host) mustBeRefused(ip netip.Addr) {
	h.t.Helper()
	_, name, err := h.dial(ip, waitLimit)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		h.t.Fatalf("connecting to %s: reached %q, %v; want a reset", ip, name, err)
	}
}

// mustBeReset fails unless the connection was ended by a reset.
func (h *host) mustBeReset(c net.Conn) {
	h.t.Helper()
	if got, err := h.read(c, waitLimit); !errors.Is(err, syscall.ECONNRESET) {
		h.t.Fatalf("over a connection to %s: read %q, %v; want a reset", c.RemoteAddr(), got, err)
	}
}

// neighbour is the MAC the host has for ip, nil if it has none.
func (h *host) neighbour(ip netip.Addr) net.HardwareAddr {
	h.t.Helper()
	list, err := h.h.NeighList(h.eth0().Attrs().Index, netlink.FAMILY_ALL)
	check(h.t, err, "listing neighbours")
	const invalid = netlink.NUD_FAILED | netlink.NUD_INCOMPLETE | netlink.NUD_NONE
	for _, n := range list {
		if n.IP.Equal(ip.AsSlice()) && n.State&invalid == 0 {
			return n.HardwareAddr
		}
	}
	return nil
}

func (h *host) forget(ip netip.Addr) {
	h.t.Helper()
	n := &netlink.Neigh{LinkIndex: h.eth0().Attrs().Index, IP: ip.AsSlice()}
	if err := h.h.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
		h.t.Fatalf("forgetting neighbour: %v", err)
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); ; time.Sleep(2 * time.Millisecond) { //nolint:forbidigo // the time itself is what is tested
		if cond() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("did not happen within %s: %s", waitLimit, what)
		}
	}
}

// nft runs the nft tool, which only tests may.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipping, no nft tool")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
