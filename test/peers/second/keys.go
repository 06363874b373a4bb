package main

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// A key URI as docs/keys.md has it.
type key struct {
	scheme, canonical string
	base, version     string // the canonical form without its version, where the scheme has versions
	operatorOnly      bool   // it says what only an operator may set
	path              string // of keyfile:///PATH
	aws               []string
	attributes        map[string]string // of pkcs11:, canonical values by name
}

const (
	label    = `[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?`
	host     = label + `(?:\.` + label + `)*`
	hostPort = `(?:` + host + `|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?`
	arnHead  = `arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,32}:[0-9]{12}:`
	hex      = `[0-9A-Fa-f]`
	awsID    = `mrk-` + hex + `{32}|` + hex + `{8}-(?:` + hex + `{4}-){3}` + hex + `{12}`
	awsAlias = `alias/[A-Za-z0-9_-][A-Za-z0-9/_-]{0,249}`
	azureKey = `([A-Za-z0-9-]{1,127})(?:/(` + hex + `{32})?)?`
	vaultOne = `[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?`
	vaultAll = vaultOne + `(?:/` + vaultOne + `)*`
	p11Char  = `%[0-9A-Fa-f]{2}|[\x21-\x22$\x27-\x2b\x2d-\x3a\x3c-\x3e\x40-\x5b\x5d-\x7e]`
	kbsName  = `[A-Za-z0-9_.-]+`
)

func whole(pattern string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + pattern + `)\z`) }

var (
	google    = whole(`(?:gcpkms://)?(projects/(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]{0,61}/locations/[a-z0-9-]{1,63}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63})(?:/(?:cryptoKeyVersions|versions)/([1-9][0-9]{0,9}))?`)
	awsARN    = whole(`(` + arnHead + `)(?:key/(` + awsID + `)|(` + awsAlias + `))`)
	awsURI    = whole(`awskms://(` + hostPort + `)?/((?s).*)`)
	awsIDOnly = whole(awsID)
	awsName   = whole(awsAlias)
	azure     = whole(`(?:azurekms://(` + host + `)(?::443)?/|https://(` + host + `)(?::443)?/keys/)` + azureKey)
	vault     = whole(`(?:hashivault|openbao)://(` + vaultOne + `)(?:\?(.+))?`)
	vaultPath = whole(vaultAll)
	attribute = whole(`(token|manufacturer|serial|model|object|type|id)=((?:` + p11Char + `|&)+)`)
	slotID    = whole(`slot-id=[0-9]{1,20}`)
	p11Query  = whole(`(?:pin-source|module-name|module-path)=(?:` + p11Char + `|;)+`)
	keyPath   = whole(`keyfile://((?:/[\x21\x22$\x26-\x2b\x2d\x2e\x30-\x3e\x40-\x5b\x5d-\x7e]+)+)`)
	keyThumb  = whole(`keyfile:sha256:[0-9a-f]{64}`)
	bech32    = whole(`[02-9ac-hj-np-z]+`)
	own       = whole(`(x-[a-z][a-z0-9]{0,30}):[A-Za-z0-9/][A-Za-z0-9_.~:@;=+/-]*`)
	kbs       = whole(`kbs://(?:` + hostPort + `)?/(` + kbsName + `/` + kbsName + `/` + kbsName + `)`)

	googlePrefix = whole(`gcpkms://projects/(?:[A-Za-z0-9_.:-]+/)*\*`)
	awsPrefix    = whole(`awskms:///arn:aws[a-z-]*:kms:[a-z0-9-]{1,32}:[0-9]{12}:(?:key/|alias/)(?:[A-Za-z0-9_-]+/)*\*`)
	azurePrefix  = whole(`azurekms://[A-Za-z0-9.-]+\.[A-Za-z0-9-]+/\*`)
)

func parseKey(uri string) (k key, ok bool) {
	if len(uri) > 2048 {
		return
	}
	if k, ok = parseScheme(uri); !ok || len(k.canonical) > 2048 {
		return k, false
	}
	if k.scheme != "pkcs11" && dotted(uri) {
		return k, false
	}
	if k.base == "" {
		k.base = k.canonical
	}
	return k, true
}

func dotted(uri string) bool {
	for _, segment := range strings.Split(uri, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

func parseScheme(uri string) (key, bool) {
	if m := google.FindStringSubmatch(uri); m != nil {
		k := key{scheme: "gcpkms", base: "gcpkms://" + m[1], version: m[2]}
		k.canonical = k.base
		if k.version != "" {
			k.canonical += "/cryptoKeyVersions/" + k.version
		}
		return k, true
	}
	endpoint, name := "", uri
	if m := awsURI.FindStringSubmatch(uri); m != nil {
		endpoint, name = m[1], m[2]
	}
	if k, ok := parseAWS(name, name != uri); ok {
		k.operatorOnly = endpoint != ""
		return k, true
	}
	if m := azure.FindStringSubmatch(uri); m != nil {
		machine := strings.ToLower(m[1] + m[2])
		if !strings.Contains(machine, ".") {
			machine += ".vault.azure.net"
		}
		k := key{scheme: "azurekms", base: "azurekms://" + machine + "/" + strings.ToLower(m[3]), version: strings.ToLower(m[4])}
		k.canonical = k.base
		if k.version != "" {
			k.canonical += "/" + k.version
		}
		return k, true
	}
	if m := vault.FindStringSubmatch(uri); m != nil {
		return parseVault(m[1], m[2], strings.Contains(uri, "?"))
	}
	if rest, ok := strings.CutPrefix(uri, "pkcs11:"); ok {
		return parsePKCS11(rest)
	}
	if m := keyPath.FindStringSubmatch(uri); m != nil {
		return key{scheme: "keyfile", canonical: uri, path: m[1]}, true
	}
	if keyThumb.MatchString(uri) {
		return key{scheme: "keyfile", canonical: uri}, true
	}
	for head, length := range map[string]int{"age1": 58, "age1pq1": 1952} {
		if rest, ok := strings.CutPrefix(uri, head); ok && len(rest) == length && bech32.MatchString(rest) {
			return key{scheme: "age", canonical: uri}, true
		}
	}
	if m := kbs.FindStringSubmatch(uri); m != nil {
		return key{scheme: "kbs", canonical: "kbs:///" + m[1]}, true
	}
	if own.MatchString(uri) {
		return key{scheme: "own", canonical: uri}, true
	}
	return key{}, false
}

// parseAWS takes an ARN, and an id or alias where a scheme stood before it. aws holds head, id and alias.
func parseAWS(name string, named bool) (key, bool) {
	k := key{scheme: "awskms"}
	if m := awsARN.FindStringSubmatch(name); m != nil {
		k.aws = []string{m[1], strings.ToLower(m[2]), m[3]}
		if m[2] != "" {
			name = strings.ToLower(name)
		}
	} else if named && awsIDOnly.MatchString(name) {
		name = strings.ToLower(name)
		k.aws = []string{"", name, ""}
	} else if named && awsName.MatchString(name) {
		k.aws = []string{"", "", name}
	} else {
		return k, false
	}
	k.canonical = "awskms:///" + name
	return k, true
}

func parseVault(name, query string, asked bool) (key, bool) {
	k := key{scheme: "hashivault", canonical: "hashivault://" + name}
	if !asked {
		return k, true
	}
	found := map[string]string{}
	for _, part := range strings.Split(query, "&") {
		name, path, _ := strings.Cut(part, "=")
		if _, twice := found[name]; twice || (name != "engine" && name != "namespace") || !vaultPath.MatchString(path) {
			return k, false
		}
		found[name] = path
	}
	mark := "?"
	for _, name := range []string{"engine", "namespace"} {
		if found[name] != "" && !(name == "engine" && found[name] == "transit") {
			k.canonical += mark + name + "=" + found[name]
			mark = "&"
		}
	}
	return k, true
}

func parsePKCS11(rest string) (key, bool) {
	k := key{scheme: "pkcs11", attributes: map[string]string{}}
	path, query, asked := strings.Cut(rest, "?")
	if asked {
		k.operatorOnly = true
		seen := map[string]bool{}
		for _, part := range strings.Split(query, "&") {
			name, _, _ := strings.Cut(part, "=")
			if !p11Query.MatchString(part) || seen[name] {
				return k, false
			}
			seen[name] = true
		}
	}
	names := []string{}
	hasSlot := false
	for _, part := range strings.Split(path, ";") {
		if slotID.MatchString(part) && !hasSlot {
			hasSlot, k.operatorOnly = true, true
			continue
		}
		m := attribute.FindStringSubmatch(part)
		if m == nil {
			return k, false
		}
		if _, twice := k.attributes[m[1]]; twice {
			return k, false
		}
		k.attributes[m[1]] = escapePKCS11(m[2])
		names = append(names, m[1])
	}
	if len(names) == 0 {
		return k, false
	}
	sort.Strings(names)
	for i, name := range names {
		names[i] = name + "=" + k.attributes[name]
	}
	k.canonical = "pkcs11:" + strings.Join(names, ";")
	return k, true
}

func escapePKCS11(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			fmt.Sscanf(s[i+1:i+3], "%02x", &c)
			i += 2
		}
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("-_.~:[]@!$'()*+=&", c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02x", c)
		}
	}
	return out.String()
}

// parsePrefix returns what the canonical form of a key below it begins with.
func parsePrefix(s string) (string, bool) {
	if len(s) > 2048 || dotted(s) {
		return "", false
	}
	if azurePrefix.MatchString(s) {
		return strings.TrimSuffix(strings.ToLower(s), "*"), true
	}
	return strings.TrimSuffix(s, "*"), googlePrefix.MatchString(s) || awsPrefix.MatchString(s)
}

// An entry of the operator's list, or what stands for a key that the caller names (docs/packet.md, section 5.1).
type entry struct {
	key
	prefix string
}

func (e entry) covers(k key) bool {
	return e.prefix != "" && strings.HasPrefix(k.canonical, e.prefix) && !k.operatorOnly
}

// allows says whether the entry opens what a packet says is of this key.
func (e entry) allows(k key, asymmetric bool, version string, ignoreVersions bool) bool {
	if e.prefix != "" {
		return e.covers(k)
	}
	if e.scheme != k.scheme {
		return false
	}
	if version == "" {
		version = k.version
	}
	switch e.scheme {
	case "gcpkms":
		return e.base == k.base && (ignoreVersions || e.version == "" || asymmetric && e.version == version)
	case "azurekms":
		return e.base == k.base && (e.version == "" || e.version == k.version)
	case "awskms":
		return e.allowsAWS(k)
	case "pkcs11":
		found := false
		for name, value := range e.attributes {
			other, both := k.attributes[name]
			if both && other != value {
				return false
			}
			found = found || both && (name == "object" || name == "id")
		}
		return found
	}
	return e.canonical == k.canonical && k.path == ""
}

func (e entry) allowsAWS(k key) bool {
	if e.canonical == k.canonical {
		return true
	}
	head, id, alias := e.aws[0], e.aws[1], e.aws[2]
	if alias != "" {
		return k.aws[0] != "" && k.aws[1] != "" && (head == "" || head == k.aws[0] || replica(head, k))
	}
	if id != k.aws[1] {
		return false
	}
	return head == "" || k.aws[0] == "" || replica(head, k)
}

// replica says whether a multi-Region key is one of the partition and account of an ARN.
func replica(head string, k key) bool {
	mine, theirs := strings.Split(head, ":"), strings.Split(k.aws[0], ":")
	mine[3], theirs[3] = "", ""
	return strings.HasPrefix(k.aws[1], "mrk-") && strings.Join(mine, ":") == strings.Join(theirs, ":")
}
