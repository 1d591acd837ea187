/* vnet_flow */
