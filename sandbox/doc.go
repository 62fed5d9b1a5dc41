// Package sandbox builds a small data centre on one Linux machine: database hosts db1.., witnesses w1.. and a
// client, joined by one Ethernet switch, each with a real mysqld and hbd, and it breaks them on request. The
// integration tests, the demo, the chaos runs and `hbctl sandbox` all use this code.
//
// # How it is built
//
// One background process per sandbox, the runner, lives in its own PID, mount and network namespaces (and in its
// own user namespace when the caller is not root). Its network namespace is the switch: a bridge with one port
// per host. Each host is a child of the runner with PID, mount, network and UTS namespaces of its own, one
// interface eth0 with a stable MAC and address, its own /proc and host name. Because every process is below the
// runner's PID namespace and every link inside its network namespace, killing the runner with SIGKILL ends all of
// it: the kernel, not this package, guarantees that no process, namespace, mount or link is left. Only files stay, and
// the next Up or Down of the name removes them.
//
// Choices worth knowing:
//
//   - Nothing of the caller is entered: a command, a dialled connection or a fault is asked for over a Unix socket
//     and file descriptors travel with the messages. So a caller without root needs no setns, and Dial and Exec are the
//     same code for everybody.
//   - freeze is SIGSTOP to every process of the host, from outside its PID namespace, not the freezer cgroup: it works
//     without root, on every cgroup layout, and leaves no cgroup behind when the runner is killed. The host's kernel goes on
//     answering ping and acknowledging TCP, as a machine whose user space hangs does.
//   - kill-host unplugs the cable before it kills, so that the dying sockets' FIN and RST reach nobody: as at a power
//     loss. What the page cache held is kept, however, so a missing fsync does not show here.
//   - Partitions are rules of the bridge's forward hook by port, so they stop ARP, IPv4 and IPv6 alike and in one
//     direction if wanted; no address is involved and a moving VIP needs no new rule.
//   - Data directories lie on the caller's real disk, so fsync costs what it costs there. With Options.DiskSize each
//     database host gets a memory disk of that size instead, for the full-disk fault.
//   - The accounts are made with binary logging off (MariaDB's bootstrap mode, MySQL's init file), in one seed directory copied to every
//     host: all begin with an empty GTID history. The seed is made afresh for each sandbox (0.9 s), because a cache
//     would be a thing to invalidate and to leave behind.
//
// Programs that call Up start themselves again as the runner: call RunIfChild first thing in main (or TestMain).
//
// It does not simulate: latency, loss, clock drift and disk corruption are the real machine's or absent. It does not
// import the rest of the project, and knows hbd only by its configuration file and its HTTP API.
package sandbox
