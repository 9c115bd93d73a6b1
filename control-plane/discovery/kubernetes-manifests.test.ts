// The manifests that we give away: they parse, they allow what discovery reads and no more, and their configuration is valid.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { loadConfig } from "../config/load.ts";
import { formatReport, hasErrors } from "../resources/problems.ts";
import { kinds } from "./kubernetes-objects.ts";

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly { apiGroups: string[]; resources: string[]; verbs: string[] }[];
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template?: { readonly spec: PodSpec } };
}

interface PodSpec {
  readonly automountServiceAccountToken: boolean;
  readonly serviceAccountName: string;
  readonly terminationGracePeriodSeconds: number;
  readonly containers: readonly {
    readonly name: string;
    readonly args: readonly string[];
    readonly readinessProbe?: { httpGet: { path: string } };
    readonly livenessProbe?: { httpGet?: { path: string } };
    readonly securityContext: object;
    readonly volumeMounts?: readonly { mountPath: string }[];
  }[];
}

const folder = new URL("../../deploy/kubernetes/", import.meta.url);

function read(name: string): Manifest[] {
  const documents = parseAllDocuments(readFileSync(new URL(name, folder), "utf8"));
  assert.ok(Array.isArray(documents));
  return documents.map((document) => {
    assert.deepEqual([...document.errors, ...document.warnings], []);
    return document.toJS() as Manifest;
  });
}

function kindsOf(manifests: readonly Manifest[]): string[] {
  return manifests.map(({ kind, metadata: { name, namespace } }) => `${kind} ${namespace ?? "-"}/${name}`);
}

for (const [file, kind] of [
  ["rbac.yaml", "Role"],
  ["rbac-all-namespaces.yaml", "ClusterRole"],
] as const) {
  test(`${file} allows reading exactly the kinds that discovery reads`, () => {
    const role = read(file).find((manifest) => manifest.kind === kind);
    const allowed = role?.rules?.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) => resources.map((resource) => `${group}/${resource}: ${verbs}`)),
    );
    const needed = kinds.map(({ prefix, plural }) => `${/^\/apis\/([^/]+)\//.exec(prefix)?.[1] ?? ""}/${plural}: get,list,watch`);
    assert.deepEqual(allowed?.sort(), needed.sort());
  });
}

test("everything that the manifests bring is of the namespace, and there", () => {
  assert.deepEqual(kindsOf(read("rbac.yaml")), [
    "ServiceAccount mcp/vmcp",
    "Role mcp/vmcp-discovery",
    "RoleBinding mcp/vmcp-discovery",
  ]);
  assert.deepEqual(kindsOf(read("rbac-all-namespaces.yaml")), [
    "ClusterRole -/vmcp-discovery",
    "ClusterRoleBinding -/vmcp-discovery",
  ]);
  assert.deepEqual(kindsOf(read("vmcp.yaml")), [
    ...["ConfigMap mcp/vmcp", "Deployment mcp/vmcp", "Service mcp/vmcp", "PodDisruptionBudget mcp/vmcp"],
  ]);
});

test("the configuration in the ConfigMap is valid", () => {
  const text = read("vmcp.yaml")[0]?.data?.["mesh.yaml"] ?? "";
  const { resources, problems } = loadConfig(text, { file: "mesh.yaml" });
  assert.ok(!hasErrors(problems), formatReport(problems));
  assert.equal(resources.length, 2);
});

test("the proxy is probed where it answers, and only the control plane holds the token of the cluster", () => {
  const pod = read("vmcp.yaml").find(({ kind }) => kind === "Deployment")?.spec?.template?.spec;
  assert.ok(pod);
  const [proxy, controlPlane, configuration] = pod.containers;
  assert.equal(proxy?.readinessProbe?.httpGet.path, "/readyz");
  assert.equal(proxy?.livenessProbe?.httpGet?.path, "/health");
  assert.ok(controlPlane?.args.includes("--listen=127.0.0.1:7400"));
  assert.equal(pod.automountServiceAccountToken, false);
  const holdsToken = pod.containers.filter(({ volumeMounts }) =>
    volumeMounts?.some(({ mountPath }) => mountPath.includes("secrets")),
  );
  assert.deepEqual(
    holdsToken.map(({ name }) => name),
    ["control-plane"],
  );
  for (const { securityContext } of [proxy, controlPlane, configuration].filter((one) => one !== undefined)) {
    assert.deepEqual(securityContext, {
      ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    });
  }
});
