package host

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// envWithout makes the test's program ask for its capability, and say what it is
// told.
const envWithout = "NFTNET_TEST_CAPABILITY"

// TestRequireCapability: a process that lacks the capability is told its name,
// though it is root.
func TestRequireCapability(t *testing.T) {
	if os.Getenv(envWithout) != "" {
		if err := RequireCapability("CAP_NET_ADMIN"); err != nil {
			os.Stdout.WriteString("refused: " + err.Error() + "\n")
		}
		return
	}
	nstest.RequireRoot(t)
	if err := RequireCapability("CAP_NET_ADMIN"); err != nil {
		t.Errorf("root: %v", err)
	}
	for name, row := range map[string]struct {
		args    []string
		refused bool
	}{
		"all":                {nil, false},
		"without net_admin":  {[]string{"--bounding-set", "-net_admin", "--inh-caps", "-net_admin"}, true},
		"without sys_chroot": {[]string{"--bounding-set", "-sys_chroot"}, false},
	} {
		args := append([]string{"setpriv"}, row.args...)
		cmd := exec.Command(args[0], append(args[1:], os.Args[0], "-test.run=^TestRequireCapability$")...)
		cmd.Env = append(os.Environ(), envWithout+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		refused := strings.Contains(string(out), "refused: CAP_NET_ADMIN is missing: run this as root, or give the process that capability")
		if refused != row.refused {
			t.Errorf("%s: %s", name, out)
		}
	}
}
