// OpenTelemetry, Prometheus and the audit log.
import { z } from "zod";
import { absolutePath, count, decimal, environmentName, flag, headerName, labels, matching, section, text } from "./fields.ts";

export const telemetry = section({
  endpoint: matching(/^(?!.*:\/\/)[^\s/]+(:\d{1,5})?$/, "host:port without a scheme, such as localhost:4318").optional(),
  serviceName: text("a service name").optional(),
  serviceVersion: text("a version").optional(),
  tracingEnabled: flag.optional(),
  metricsEnabled: flag.optional(),
  samplingRate: decimal(0, 1).optional(),
  headers: z.record(headerName, z.string({ error: "text" }), { error: "a map of header name to value" }).optional(),
  insecure: flag.optional(),
  enablePrometheusMetricsPath: flag.optional(),
  prometheusPort: count(0, 65_535).optional(),
  metricsOnTransportPort: flag.optional(),
  environmentVariables: z.array(environmentName, { error: "a list of environment variables" }).optional(),
  customAttributes: labels.optional(),
  useLegacyAttributes: flag.optional(),
  caCertPath: absolutePath.optional(),
});

const eventTypes = [
  "mcp_initialize",
  "mcp_tool_call",
  "mcp_tools_list",
  "mcp_resource_read",
  "mcp_resources_list",
  "mcp_prompt_get",
  "mcp_prompts_list",
  "mcp_notification",
  "mcp_ping",
  "mcp_logging",
  "mcp_completion",
  "mcp_roots_list_changed",
  "sse_connection",
  "vmcp_workflow_started",
  "vmcp_workflow_completed",
  "vmcp_workflow_failed",
  "vmcp_workflow_timed_out",
  "vmcp_workflow_step_started",
  "vmcp_workflow_step_completed",
  "vmcp_workflow_step_failed",
  "vmcp_workflow_step_skipped",
  "mcp_request",
  "http_request",
] as const;

const events = z.array(z.enum(eventTypes, { error: "an event type such as mcp_tool_call" }), { error: "a list of event types" });

export const audit = section({
  enabled: flag.optional(),
  component: text("a component's name").optional(),
  eventTypes: events.optional(),
  excludeEventTypes: events.optional(),
  includeRequestData: flag.optional(),
  includeResponseData: flag.optional(),
  detectApplicationErrors: flag.optional(),
  maxDataSize: count(0).optional(),
  maxDelegationDepth: count(0).optional(),
  logFile: text("a file's path").optional(),
});
