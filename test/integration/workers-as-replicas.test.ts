// What replicas promise, two workers of one proxy promise too, without Redis.
process.env.VMCP_REPLICAS = "workers alone";
await import("./replicas.test.ts");
