// Package libnetwork holds the messages of libnetwork's remote driver protocol
// (moby daemon/libnetwork/drivers/remote/api). go-plugins-helpers has types for
// them too, without GwAllocCheck and with values that cannot carry what the
// engine sends.
package libnetwork

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Capabilities answers GetCapabilities.
type Capabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

// GwAllocCheckRequest asks whether Docker is to reserve gateway addresses.
type GwAllocCheckRequest struct{ Options NetworkOptions }

// GwAllocCheckResponse says for each family that none is to be reserved.
type GwAllocCheckResponse struct{ SkipIPv4, SkipIPv6 bool }

// NetworkOptions are the options of a network: labels of libnetwork, with the
// user's own -o options under the key of [Generic].
type NetworkOptions map[string]json.RawMessage

// IPAMData is a subnet of a network as its IPAM driver gave it.
type IPAMData struct {
	AddressSpace string
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

// CreateNetworkRequest asks for a network.
type CreateNetworkRequest struct {
	NetworkID string
	Options   NetworkOptions
	IPv4Data  []IPAMData
	IPv6Data  []IPAMData
}

// NetworkRequest names a network: DeleteNetwork.
type NetworkRequest struct{ NetworkID string }

// EndpointInterface holds addresses of an endpoint, each empty where it has none.
type EndpointInterface struct {
	Address     string `json:",omitempty"`
	AddressIPv6 string `json:",omitempty"`
	MacAddress  string `json:",omitempty"`
}

// CreateEndpointRequest asks for an endpoint.
type CreateEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *EndpointInterface
	Options    map[string]json.RawMessage
}

// CreateEndpointResponse tells the addresses that Docker did not give itself.
type CreateEndpointResponse struct{ Interface *EndpointInterface }

// EndpointRequest names an endpoint: DeleteEndpoint, EndpointOperInfo, Leave, RevokeExternalConnectivity.
type EndpointRequest struct{ NetworkID, EndpointID string }

// JoinRequest attaches an endpoint to the network namespace of a container.
type JoinRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string
	Options    ConnectivityOptions
}

// JoinResponse tells the link that Docker moves into the container, and its default routes.
type JoinResponse struct {
	InterfaceName         InterfaceName
	Gateway               string `json:",omitempty"`
	GatewayIPv6           string `json:",omitempty"`
	DisableGatewayService bool   `json:",omitempty"`
}

// InterfaceName is the name of a link, and how its name begins inside the container.
type InterfaceName struct{ SrcName, DstPrefix string }

// ConnectivityRequest makes an endpoint the gateway of its container: ProgramExternalConnectivity.
type ConnectivityRequest struct {
	NetworkID  string
	EndpointID string
	Options    ConnectivityOptions
}

// ConnectivityOptions are the options of Join and ProgramExternalConnectivity.
type ConnectivityOptions struct {
	PortMap []PortBinding `json:"com.docker.network.portmap"`
	// NoProxy6To4 says that another endpoint is the container's IPv6 gateway.
	NoProxy6To4 bool `json:"com.docker.network.driver.private.no_proxy_6to4"`
}

// PortBinding is a port that the user publishes. HostPort and HostPortEnd are
// the same for one port, a range to choose from, or 0 for any.
type PortBinding struct {
	Proto       uint8
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// OperInfoResponse answers EndpointOperInfo.
type OperInfoResponse struct{ Value map[string]any }

// Empty is a message without content.
type Empty struct{}

// ErrorResponse is how libnetwork takes an error: the user sees
// "remote: " and the text.
type ErrorResponse struct{ Err string }

// Labels by which libnetwork names options (moby daemon/libnetwork/netlabel).
const (
	Generic    = "com.docker.network.generic"
	Internal   = "com.docker.network.internal"
	EnableIPv4 = "com.docker.network.enable_ipv4"
	EnableIPv6 = "com.docker.network.enable_ipv6"
)

// Flag reads a boolean of libnetwork's, which sends it as a bool or as text.
func (o NetworkOptions) Flag(key string, absent bool) (bool, error) {
	raw, ok := o[key]
	if !ok {
		return absent, nil
	}
	var b bool
	if json.Unmarshal(raw, &b) == nil {
		return b, nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if b, err := strconv.ParseBool(s); err == nil {
			return b, nil
		}
	}
	return false, fmt.Errorf("option %s: %s is not allowed: true or false is", key, raw)
}
