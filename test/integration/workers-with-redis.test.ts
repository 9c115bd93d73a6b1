// What replicas promise, two workers of one proxy that shares Redis with others promise too.
process.env.VMCP_REPLICAS = "workers with Redis";
await import("./replicas.test.ts");
