/* nsg_flow */
