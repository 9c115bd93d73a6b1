// Where discovery providers look is said with flags, and what they leave out is shown to operators.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeContainer, startDockerApi } from "../support/docker-api.ts";
import { fakeObject, startKubernetesApi } from "../support/kubernetes-api.ts";
import { runVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";

const mesh = ["control-plane", "--listen", "127.0.0.1:0", "--data", ":memory:"];

/** Contexts `here` and `there`, of which the second one leads to a cluster. */
const kubeconfig = (server: string): string =>
  JSON.stringify({
    "current-context": "here",
    clusters: [
      { name: "dead", cluster: { server: "http://127.0.0.1:1" } },
      { name: "alive", cluster: { server } },
    ],
    contexts: [
      { name: "here", context: { cluster: "dead", namespace: "mcp" } },
      { name: "there", context: { cluster: "alive", namespace: "mcp" } },
    ],
  });

const service = (name: string, namespace: string, path: string) =>
  fakeObject("Service", name, {
    ...{ namespace, labels: { "vmcp.enable": "true" }, annotations: { "vmcp.group": "team", "vmcp.path": path } },
    spec: { ports: [{ port: 80 }] },
  });

test("docker and kubernetes look where flags say, and what is labelled wrongly is named with what was wanted", async () => {
  await using docker = await startDockerApi();
  await using cluster = await startKubernetesApi();
  await using directory = await temporaryDirectory();
  const config = await directory.write("config", kubeconfig(cluster.address));
  const on = { "vmcp.enable": "true", "vmcp.group": "team" };
  docker.containers.push(fakeContainer("web", on, { publishedAs: 4_000 }), fakeContainer("odd", { ...on, "vmcp.port": "http" }));
  cluster.put(service("jira", "mcp", "/mcp"));
  cluster.put(service("wiki", "other", "/mcp"));
  cluster.put(service("odd", "other", "mcp"));
  const ofDocker = ["--docker-host", docker.address, "--docker-published-host", "docker.example"];
  const ofKubernetes = ["--kubeconfig", config, "--kubernetes-context", "there", "--kubernetes-namespace", "*"];
  await using plane = await startVmcp([...mesh, "--discovery", "docker,kubernetes", ...ofDocker, ...ofKubernetes]);

  const backends = await runVmcpctl(plane.adminAddress, ["get", "backends", "-o", "json"]);
  const urls = [...backends.stdout.matchAll(/"address": "([^"]+)"/g)].map(([, url]) => url).sort();
  assert.deepEqual(urls, ["http://docker.example:4000/mcp", "http://jira.mcp.svc:80/mcp", "http://wiki.other.svc:80/mcp"]);
  const { stdout, stderr } = await runVmcpctl(plane.adminAddress, ["get", "providers"]);
  assert.match(stdout, /^docker +OK +yes +\d+s ago +1 +1 +-$/m);
  assert.match(stdout, /^kubernetes +OK +yes +\d+s ago +1 +2 +-$/m);
  assert.deepEqual(stderr.trim().split("\n"), [
    'docker: container odd is left out: vmcp.port is "http"; wanted a port from 1 to 65535',
    'kubernetes: Service other/odd is left out: vmcp.path is "mcp"; wanted a path of a URL, from its first slash on',
  ]);
});

for (const [flags, wanted] of [
  [["--docker-host", "unix:///x"], /--docker-host is for --discovery docker, which is not among/],
  [["--discovery", "docker", "--kubernetes-namespace", "*"], /--kubernetes-namespace is for --discovery kubernetes/],
] as const) {
  test(`${flags.join(" ")} is refused: nobody would read it`, async () => {
    const { code, stderr } = await runVmcp([...mesh, ...flags]);
    assert.equal(code, 64);
    assert.match(stderr, wanted);
  });
}
