package hd

var DescriptorSum = descriptorSum
