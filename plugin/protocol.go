package plugin

import "encoding/json"

// The messages of libnetwork's remote driver protocol
// (moby daemon/libnetwork/drivers/remote/api). go-plugins-helpers has types for
// them too, without GwAllocCheck and with values that cannot carry what the
// engine sends.

type capabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

type gwAllocCheckRequest struct{ Options networkOptions }

type gwAllocCheckResponse struct{ SkipIPv4, SkipIPv6 bool }

// networkOptions are the options of a network: labels of libnetwork, with the
// user's own -o options under the key of [optionGeneric].
type networkOptions map[string]json.RawMessage

type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

type createNetworkRequest struct {
	NetworkID string
	Options   networkOptions
	IPv4Data  []ipamData
	IPv6Data  []ipamData
}

type networkRequest struct{ NetworkID string }

type endpointInterface struct {
	Address     string `json:",omitempty"`
	AddressIPv6 string `json:",omitempty"`
	MacAddress  string `json:",omitempty"`
}

type createEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *endpointInterface
	Options    map[string]json.RawMessage
}

type createEndpointResponse struct{ Interface *endpointInterface }

type endpointRequest struct{ NetworkID, EndpointID string }

type joinRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string
}

type joinResponse struct {
	InterfaceName         interfaceName
	Gateway               string `json:",omitempty"`
	GatewayIPv6           string `json:",omitempty"`
	DisableGatewayService bool   `json:",omitempty"`
}

type interfaceName struct{ SrcName, DstPrefix string }

type connectivityRequest struct {
	NetworkID  string
	EndpointID string
	Options    connectivityOptions
}

type connectivityOptions struct {
	PortMap []portBinding `json:"com.docker.network.portmap"`
	// NoProxy6To4 says that another endpoint is the container's IPv6 gateway.
	NoProxy6To4 bool `json:"com.docker.network.driver.private.no_proxy_6to4"`
}

// portBinding is a port that the user publishes. HostPort and HostPortEnd are
// the same for one port, a range to choose from, or 0 for any.
type portBinding struct {
	Proto       uint8
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

type operInfoResponse struct{ Value map[string]any }

type empty struct{}

// errorResponse is how libnetwork takes an error: the user sees
// "remote: " and the text.
type errorResponse struct{ Err string }
