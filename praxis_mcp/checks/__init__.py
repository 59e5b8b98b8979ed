"""What ``praxis-mcp lint`` looks for in contracts that load: clients that would refuse a tool, models that would
misunderstand it, and what should not stand in a contract (docs/checks.md)."""
